//! `all`: every view of an image, and one page that holds them.

use super::{Made, View, make, read_images};
use crate::error::CliError;
use crate::output::{Output, thousands};
use crate::page::{self, data_uri};
use crate::run_dir::io_error;
use clap::{Args, FromArgMatches, Subcommand};
use maud::{Markup, html};
use ndarray::Axis;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use striate::formats::{ModelFile, write_atomically};

const PAGE: &str = "explain.html";

const EXAMPLES: &str = "Examples:
  striate explain runs/simple-convnet-mnist-1 all mnist:test:42
  striate explain runs/simple-convnet-mnist-1 all digit.png --class 7 --out digit
  striate explain runs/photos-resnet18-1 all cat.jpg --data photos

A view that the model or its run can't give is left out, and the page says why.";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct AllArgs {
    /// A PNG or JPEG file, or `mnist:test:42`
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The class whose score is explained, by name or number [default: the predicted one]
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// Data for the views that go over many images: a name, or a directory or list of images as for `train` [default: what
    /// the model was trained on]
    #[arg(long, value_name = "NAME|DIR")]
    data: Option<String>,
    /// Directory to write into [default: explain in the run directory, or here]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// A view on the page.
struct Section {
    /// Of the picture's file, too.
    id: &'static str,
    title: &'static str,
    /// What to see in it.
    text: &'static str,
    /// The view and its arguments.
    arguments: Vec<String>,
    made: Result<Made, String>,
}

pub(super) fn run(args: &AllArgs, path: &Path, model: &ModelFile, output: &Output) -> Result<ExitCode, CliError> {
    if args.image == "-" {
        return Err(CliError::Usage("explain all: stdin can be read only once; give the image as a file".into()));
    }
    // Faults of the image or the class are no reason to leave views out.
    let images = read_images(std::slice::from_ref(&args.image), args.class.as_deref(), model)?;
    let directory =
        args.out.clone().unwrap_or_else(|| if path.is_dir() { path.join("explain") } else { "explain".into() });
    fs::create_dir_all(&directory).map_err(io_error(&directory, "create the directory"))?;
    let mut sections = Vec::new();
    let (mut views, mut left_out) = (Vec::new(), Vec::new());
    for (id, title, text, arguments) in views_of(args) {
        let made = match parsed(&arguments).and_then(|view| make(&view, model, path, output)) {
            Ok(made) => Ok(made),
            Err(error @ CliError::Write(_)) => return Err(error),
            Err(error) => Err(error.to_string()),
        };
        match &made {
            Ok(made) => {
                let (files, json) = made.write(&directory.join(format!("{id}.png")), id)?;
                files.iter().for_each(|file| output.line(format!("{file}: {}", made.words)));
                views.push(json);
            }
            Err(reason) => {
                output.line(format!("{id}: left out: {reason}"));
                left_out.push(serde_json::json!({ "view": id, "reason": reason }));
            }
        }
        sections.push(Section { id, title, text, arguments, made });
    }
    let file = directory.join(PAGE);
    let name = &model.network.description().name;
    let mut facts = Vec::new();
    for image in &images {
        let logits = model.network.predict(image.x.view().insert_axis(Axis(0)))?;
        let probability = model.probabilities(&logits)[[0, image.class]];
        facts.push(("Explained class", format!("{} ({:.1} %)", model.class_name(image.class), 100.0 * probability)));
        facts.push(("Image", image.caption.clone()));
    }
    facts.push(("Model", name.clone()));
    facts.push(("Parameters", thousands(model.network.parameters().learnt())));
    let title = format!("What {name} sees in {}", args.image);
    write_atomically(&file, html(&title, &facts, &sections, path).into_string().as_bytes())?;
    output.line(format!("{}: {} views on one page", file.display(), views.len()));
    output.json(&serde_json::json!({
        "view": "all",
        "out": directory.display().to_string(),
        "page": file.display().to_string(),
        "views": Value::from(views),
        "left_out": Value::from(left_out),
    }));
    Ok(ExitCode::SUCCESS)
}

type Listed = (&'static str, &'static str, &'static str, Vec<String>);

/// The views, in the order of the way through the network.
fn views_of(args: &AllArgs) -> Vec<Listed> {
    let image = args.image.as_str();
    let class: Vec<&str> = args.class.iter().flat_map(|class| ["--class", class]).collect();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    // Enough to see what there is to see, and done in seconds.
    let mut over_many = vec!["--images", "2000"];
    over_many.extend(args.data.iter().flat_map(|data| ["--data", data]));
    let of_data = |view: &[&str]| words(&[view, over_many.as_slice()].concat());
    let of_class = |view: &str| words(&[&[view, image], class.as_slice()].concat());
    vec![
        (
            "filters",
            "Filters",
            "The weights of the first convolution: the small patterns that it looks for everywhere in the image.",
            words(&["filters"]),
        ),
        (
            "responses",
            "What the filters answer to",
            "The image as each filter sees it, sorted by the direction of the edges that the filter answers to.",
            words(&["filters", "--apply", image]),
        ),
        (
            "feature-maps",
            "Layer by layer",
            "What every layer makes of the image: from edges, over parts, to one number a class.",
            words(&["feature-maps", image]),
        ),
        (
            "saliency",
            "Pixels that count",
            "Where a change of a pixel would raise (red) or lower (blue) the class's score.",
            of_class("saliency"),
        ),
        (
            "grad-cam",
            "Where the class is found",
            "The places of the last convolution's maps that speak for the class.",
            of_class("grad-cam"),
        ),
        (
            "occlusion",
            "What must not be covered",
            "How much of the score is lost (red) where a square covers the image.",
            of_class("occlusion"),
        ),
        ("maximize", "Ideal images", "Images made to please each class as much as possible.", words(&["maximize"])),
        (
            "depth",
            "Deeper and deeper",
            "The parts of images that units of each layer answer to most, beside images made for them.",
            of_data(&["depth"]),
        ),
        (
            "similar",
            "What it holds for alike",
            "The training images whose features are nearest to this image's.",
            of_data(&["similar", image]),
        ),
        (
            "embedding",
            "All images at once",
            "The features of many images in the two directions in which they differ most, coloured by class.",
            of_data(&["embedding"]),
        ),
        (
            "shift",
            "What a small move changes",
            "How the answers change when images are moved by some pixels.",
            of_data(&["shift"]),
        ),
        (
            "timeline",
            "How it came about",
            "The training, one moment after the other: filters, their maps of this image, and the probabilities.",
            words(&["timeline", image]),
        ),
        (
            "im2col",
            "What convolution costs",
            "The matrix that im2col would unroll, and the workspace that runs here instead.",
            words(&["im2col"]),
        ),
    ]
}

/// A view as the command line would give it.
fn parsed(arguments: &[String]) -> Result<View, CliError> {
    let command = View::augment_subcommands(clap::Command::new("explain"));
    let words = std::iter::once("explain").chain(arguments.iter().map(String::as_str));
    let matches = command.try_get_matches_from(words);
    let view = matches.and_then(|matches| View::from_arg_matches(&matches));
    view.map_err(|error| CliError::Usage(error.to_string()))
}

fn html(title: &str, facts: &[(&str, String)], sections: &[Section], model: &Path) -> Markup {
    let shown = || sections.iter().filter_map(|section| Some((section, section.made.as_ref().ok()?)));
    let left_out: Vec<_> =
        sections.iter().filter_map(|section| Some((section, section.made.as_ref().err()?))).collect();
    let model = model.display().to_string();
    let main = html! {
        header {
            h1 { (title) }
            p.faint { "striate " (env!("CARGO_PKG_VERSION")) }
            (page::facts(facts))
            nav {
                @for (section, _) in shown() { a href={ "#" (section.id) } { (section.title) } }
                @if !left_out.is_empty() { a href="#left-out" { "Left out" } }
            }
        }
        @for (section, made) in shown() {
            h2 #(section.id) { (section.title) }
            p { (section.text) }
            @for (suffix, png) in &made.pictures {
                figure.sheet {
                    img src=(data_uri(png)) alt={ (section.title) @if !suffix.is_empty() { ", " (suffix.trim_start_matches('-')) } };
                }
            }
            @if !made.lines.is_empty() {
                p.faint { (made.words) }
                pre { (made.lines.join("\n")) }
            }
            pre { (page::command(["explain", &model].into_iter().chain(section.arguments.iter().map(String::as_str)))) }
        }
        @if !left_out.is_empty() {
            h2 #left-out { "Left out" }
            dl.details { @for (section, reason) in &left_out { dt { (section.title) } dd { (reason) } } }
        }
    };
    page::page(title, &main)
}
