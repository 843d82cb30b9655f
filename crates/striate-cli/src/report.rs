//! `report.html`: a run on one [`page`] that needs nothing beside it, with the pictures that the run directory holds.

use crate::error::CliError;
use crate::output::{thousands, to_json};
use crate::page::{self, data_uri};
use crate::run_dir::RunDir;
use crate::train::Class;
use crate::{pictures, source};
use maud::{Markup, PreEscaped, html};
use std::fs;
use striate::data::Dataset;
use striate::data::image_folder::Skipped;
use striate::draw::{self, DrawError};
use striate::formats::{Temperature, weights_sha256};
use striate::kernels::isa;
use striate::network::Network;
use striate::train::{Evaluation, TrainSummary};

const FILE: &str = "report.html";

/// A run that has come to its end.
pub(crate) struct Finished<'a> {
    /// `--model` and `--data`.
    pub(crate) model: &'a str,
    pub(crate) data: &'a str,
    pub(crate) seed: u64,
    /// `run.toml`.
    pub(crate) settings: &'a str,
    pub(crate) network: &'a Network,
    pub(crate) train: &'a Dataset,
    pub(crate) test: &'a Dataset,
    /// What the network comes to on the test set, at the temperature if there is one.
    pub(crate) on_test: &'a Evaluation,
    pub(crate) train_accuracy: f64,
    pub(crate) summary: &'a TrainSummary,
    pub(crate) temperature: Option<&'a Temperature>,
    /// How classes were balanced; empty for not at all.
    pub(crate) classes: &'a [Class],
    /// Files of the data that could not be read.
    pub(crate) skipped: &'a [Skipped],
    /// Of each part of the data.
    pub(crate) data_sha256: Vec<(&'static str, &'a str)>,
}

impl Finished<'_> {
    /// Writes what was measured: the last line of `metrics.jsonl`, `reliability.svg`, `mistakes.png` and the page. The
    /// other pictures of the run must be there already.
    pub(crate) fn write(&self, run: &mut RunDir) -> Result<(), CliError> {
        let (found, summary) = (self.on_test, self.summary);
        let mut line = to_json(found);
        (line["type"], line["data"], line["step"]) =
            ("evaluation".into(), self.test.name().into(), summary.steps.into());
        run.metric(&line)?;
        let title = format!("{} on {}", self.model, source::short_name(self.data));
        run.write("reliability.svg", pictures::reliability(found, &format!("{title}, test set")))?;
        run.write("mistakes.png", draw::png(&pictures::mistakes(found, self.test))?)?;
        let calibration = found.scaled.as_ref().map_or(&found.calibration, |scaled| &scaled.calibration);
        let page = Page {
            title: &title,
            facts: vec![
                ("Test accuracy", percent(found.accuracy)),
                ("Test loss", format!("{:.4}", found.loss)),
                ("Mean F1 of classes", percent(found.macro_average.f1)),
                ("Calibration error", percent(calibration.expected_error)),
                ("Training accuracy", percent(self.train_accuracy)),
                ("Parameters", thousands(self.network.parameters().learnt())),
                ("Epochs", summary.epochs.to_string()),
                ("Training time", format!("{:.1} s", summary.seconds)),
            ],
            notes: summary.stopped.then(|| "The run was stopped before its end.".into()).into_iter().collect(),
            found,
            data: self.test,
            calibration: calibration_in_words(found, self.temperature),
            settings: self.settings,
            balanced: self.classes,
            skipped: self.skipped.iter().map(|skipped| skipped.reason.to_string()).collect(),
            command: page::own_command(),
            reproduce: vec![
                ("Version", format!("striate {}", env!("CARGO_PKG_VERSION"))),
                ("Seed", self.seed.to_string()),
                (
                    "Data",
                    format!(
                        "{}: {} training and {} test images",
                        self.data,
                        thousands(self.train.len()),
                        thousands(self.test.len())
                    ),
                ),
                (
                    "SHA-256 of the data",
                    self.data_sha256.iter().map(|(part, sha)| format!("{part} {sha}")).collect::<Vec<_>>().join(", "),
                ),
                ("Instruction set", isa::active().name().into()),
                ("Threads", rayon::current_num_threads().to_string()),
                ("System", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
                ("SHA-256 of the weights", weights_sha256(self.network.parameters())),
            ],
        };
        let html = page.html(|name| fs::read(run.file(name)).ok())?;
        run.write(FILE, html.into_string())
    }
}

/// What the page says.
struct Page<'a> {
    title: &'a str,
    /// The few numbers that matter most, the first before all.
    facts: Vec<(&'static str, String)>,
    /// What a reader must know, such as that the run was stopped.
    notes: Vec<String>,
    /// What the final weights come to on `data`.
    found: &'a Evaluation,
    data: &'a Dataset,
    calibration: String,
    settings: &'a str,
    /// How classes were balanced.
    balanced: &'a [Class],
    /// Why files of the data were left out.
    skipped: Vec<String>,
    command: String,
    /// What else has to be the same for the same bits, and where it ran.
    reproduce: Vec<(&'static str, String)>,
}

impl Page<'_> {
    /// The page, with the pictures that `file` has by name.
    fn html(&self, file: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Markup, DrawError> {
        let picture = |name: &str, words: &str, wide: bool| -> Markup {
            let Some(bytes) = file(name) else { return html! {} };
            html! {
                figure.wide[wide] {
                    @if name.ends_with(".svg") {
                        // Drawn by this program, which escapes every text in it.
                        (PreEscaped(String::from_utf8_lossy(&bytes)))
                    } @else {
                        img src=(data_uri(&bytes)) alt=(words);
                    }
                    figcaption { (words) }
                }
            }
        };
        let filters = ["filters-before.png", "filters-after.png"].iter().any(|name| file(name).is_some());
        let augmented = file("augment.png").is_some();
        let main = html! {
            header {
                h1 { (self.title) }
                p.faint { "Training report, striate " (env!("CARGO_PKG_VERSION")) }
                (page::facts(&self.facts))
                @for note in &self.notes { p.note { (note) } }
                nav {
                    a href="#curves" { "Curves" }
                    a href="#classes" { "Classes" }
                    a href="#calibration" { "Calibration" }
                    a href="#mistakes" { "Mistakes" }
                    @if filters { a href="#filters" { "Filters" } }
                    @if augmented { a href="#augmentation" { "Augmentation" } }
                    @if !self.skipped.is_empty() { a href="#skipped" { "Left out" } }
                    a href="#reproduce" { "Reproduce" }
                    a href="#options" { "Options" }
                }
            }
            h2 #curves { "Curves" }
            (picture("curves.svg", "Loss and accuracy after each epoch.", true))
            h2 #classes { "Classes" }
            (picture("confusion.svg", "Which class (row) was taken for which (column).", self.data.classes() > 20))
            (self.classes())
            (self.balance())
            h2 #calibration { "Calibration" }
            p { (self.calibration) }
            (picture("reliability.svg", "How often the model is right where it is so sure: without orange, \
                probabilities are shares of right answers.", false))
            h2 #mistakes { "Most confident mistakes" }
            (self.mistakes()?)
            @if filters {
                h2 #filters { "Filters of the first convolution" }
                div.pair {
                    (picture("filters-before.png", "Before training.", false))
                    (picture("filters-after.png", "After training.", false))
                }
            }
            @if augmented {
                h2 #augmentation { "Augmentation" }
                (picture("augment.png", "What the network saw while training.", false))
            }
            @if !self.skipped.is_empty() {
                h2 #skipped { "Files left out" }
                p { (thousands(self.skipped.len())) " files of the data could not be read and were left out." }
                ul {
                    @for reason in self.skipped.iter().take(source::LISTED) { li { (reason) } }
                    @if self.skipped.len() > source::LISTED {
                        li { "and " (thousands(self.skipped.len() - source::LISTED)) " more" }
                    }
                }
            }
            h2 #reproduce { "How to reproduce" }
            pre { (self.command) }
            p.faint {
                "The same weights, to the bit, need the same version, options, data and instruction set. The number \
                 of threads does not matter."
            }
            dl.details { @for (name, value) in &self.reproduce { dt { (name) } dd { (value) } } }
            h2 #options { "Options" }
            p.faint { "run.toml, with every option resolved." }
            pre { (self.settings) }
        };
        Ok(page::page(self.title, &main))
    }

    fn classes(&self) -> Markup {
        let bar = |share: f64| html! { meter min="0" max="1" value=(format!("{share:.4}")) {} };
        let mean = &self.found.macro_average;
        html! {
            div.scroll {
                table {
                    thead { tr { th { "class" } th { "images" } th { "precision" } th { "recall" } th { "F1" } th {} } }
                    tbody {
                        @for (name, class) in self.data.class_names().iter().zip(&self.found.classes) {
                            tr {
                                td title=(name) { (name) }
                                td { (thousands(class.images)) }
                                td { (percent(class.precision)) }
                                td { (percent(class.recall)) }
                                td { (percent(class.f1)) }
                                td { (bar(class.f1)) }
                            }
                        }
                    }
                    tfoot {
                        tr {
                            td { "mean of classes" }
                            td { (thousands(self.found.images)) }
                            td { (percent(mean.precision)) }
                            td { (percent(mean.recall)) }
                            td { (percent(mean.f1)) }
                                td { (bar(mean.f1)) }
                        }
                    }
                }
            }
        }
    }

    /// What was done about classes of unequal size, if anything was.
    fn balance(&self) -> Markup {
        let Some(first) = self.balanced.first() else { return html! {} };
        let weighs = first.weight.is_some();
        html! {
            p.faint {
                @if weighs {
                    "While training, the loss of an image counted by the inverse of the size of its class; the mean over the \
                     training images is 1."
                } @else {
                    "While training, every epoch took as many images of each class; images of small classes several times."
                }
            }
            div.scroll {
                table {
                    thead {
                        tr {
                            th { "class" }
                            th { "training images" }
                            th { @if weighs { "weight" } @else { "drawn an epoch" } }
                        }
                    }
                    tbody {
                        @for class in self.balanced {
                            tr {
                                td title=(class.name) { (class.name) }
                                td { (thousands(class.images)) }
                                @if let Some(weight) = class.weight { td { (format!("{weight:.3}")) } }
                                @if let Some(drawn) = class.drawn { td { (thousands(drawn)) } }
                            }
                        }
                    }
                }
            }
        }
    }

    fn mistakes(&self) -> Result<Markup, DrawError> {
        let wrong = self.found.images - self.found.correct;
        if wrong == 0 {
            return Ok(html! { p { "Not one image of " (self.data.name()) " was taken for something else." } });
        }
        let name = |class: usize| self.data.class_names().get(class).map_or("?", String::as_str);
        let probability = |probability: f32| format!("{:.1} %", 100.0 * probability);
        let shown: Vec<_> = self.found.mistakes.iter().take(pictures::SHOWN).collect();
        let images: Vec<String> = shown
            .iter()
            .map(|mistake| Ok(data_uri(&draw::png(&pictures::thumbnail(self.data, mistake.index))?)))
            .collect::<Result<_, DrawError>>()?;
        Ok(html! {
            p.faint {
                (shown.len()) " of " (thousands(wrong)) " images that were taken for something else, with the probabilities of \
                 what they were taken for and of what they are labelled. Wrong labels show here first."
            }
            div.mistakes {
                @for (mistake, image) in shown.iter().zip(&images) {
                    figure title={ "image " (mistake.index) " of " (self.data.name()) } {
                        img src=(image) alt={ (name(mistake.label)) ", taken for " (name(mistake.predicted)) };
                        figcaption {
                            b { (name(mistake.predicted)) } " " (probability(mistake.probability)) br;
                            (name(mistake.label)) " " (probability(mistake.label_probability))
                        }
                    }
                }
            }
        })
    }
}

/// What the page says of the probabilities.
fn calibration_in_words(found: &Evaluation, temperature: Option<&Temperature>) -> String {
    let plain = format!(
        "The expected calibration error is {}: the mean confidence is {}, the accuracy {}.",
        percent(found.calibration.expected_error),
        percent(found.calibration.confidence),
        percent(found.accuracy)
    );
    match (&found.scaled, temperature) {
        (Some(scaled), Some(temperature)) => format!(
            "{plain} A temperature of {:.4}, fitted on {} images of {}, makes it {} and the loss {:.4} instead of {:.4}; the \
             model file holds it, and predictions use it.",
            scaled.temperature,
            thousands(temperature.images),
            temperature.data,
            percent(scaled.calibration.expected_error),
            scaled.loss,
            found.loss
        ),
        _ => format!(
            "{plain} No temperature was fitted: that takes images that were neither trained nor tested on. With --calibrate, \
             striate evaluate fits one on any data."
        ),
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use striate::data::Pixels;
    use striate::shape::Shape;

    const HOSTILE: &str = "<script>alert(\"1\")</script>'&</td></style>";

    fn page() -> String {
        let labels = vec![0, 1];
        let classes = vec![HOSTILE.to_string(), "cat".into()];
        let data = Dataset::new(HOSTILE, Shape::new(1, 1, 2), Pixels::U8(vec![0, 255, 9, 9]), labels, classes.clone())
            .unwrap();
        let logits = ndarray::array![[0.0f32, 3.0], [0.0, 1.0]];
        let found = Evaluation::of_logits(logits.view(), data.labels(), 1.0).unwrap();
        let confusion = draw::confusion(&found.confusion, &classes, HOSTILE);
        let page = Page {
            title: HOSTILE,
            facts: vec![("Test accuracy", HOSTILE.into())],
            notes: vec![HOSTILE.into()],
            found: &found,
            data: &data,
            calibration: HOSTILE.into(),
            settings: HOSTILE,
            balanced: &[Class { name: HOSTILE.into(), images: 1, weight: Some(1.0), drawn: None }],
            skipped: vec![HOSTILE.into()],
            command: HOSTILE.into(),
            reproduce: vec![("Data", HOSTILE.into())],
        };
        let file = |name: &str| (name == "confusion.svg").then(|| confusion.clone().into_bytes());
        page.html(file).unwrap().into_string()
    }

    #[test]
    fn text_from_outside_stays_text() {
        let page = page();
        assert!(!page.contains("<script") && !page.contains("'&</td>"), "{page}");
        assert_eq!(page.matches("</style>").count(), 1);
        assert!(page.matches("&lt;script&gt;alert(&quot;1&quot;)").count() > 9);
    }

    #[test]
    fn the_page_needs_nothing_beside_it() {
        let page = page();
        for outside in ["http://", "https://", "url(", "@import", "<link", "<iframe", "src=\"/"] {
            let rest = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!rest.contains(outside), "{outside}");
        }
        assert!(page.contains("src=\"data:image/png;base64,iVBOR"));
        assert!(page.contains("taken for cat") && page.contains("95.3 %"));
    }
}
