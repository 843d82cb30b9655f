//! `similar`: training images that the network holds for alike, and the layer at which a class is lost.

use super::{DataArgs, Drawn, Image, Out, band, find_class, read_images};
use crate::error::CliError;
use crate::output::{Output, thousands, to_json};
use crate::pictures;
use crate::progress::Bar;
use clap::Args;
use image::RgbImage;
use ndarray::{Array3, Axis};
use serde_json::json;
use striate::data::{Dataset, Normalization, one_class_names};
use striate::draw::sheet::{self, Sheet, Tile};
use striate::explain::similar::Readout;
use striate::explain::{self, ClassMeans, ExplainError, Images};
use striate::formats::ModelFile;
use striate::train::Evaluation;

const EXAMPLES: &str = "Examples:
  striate explain runs/simple-convnet-mnist-1 similar                    the test set's most confident mistakes
  striate explain runs/simple-convnet-mnist-1 similar --mistakes 20 --images 60000
  striate explain runs/simple-convnet-mnist-1 similar mnist:test:247 mnist:test:42 --top 5
  striate explain runs/simple-convnet-mnist-1 similar digit.png --is 7 --layer Conv1";

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct SimilarArgs {
    /// PNG or JPEG files, `-` for stdin, or `mnist:test:42` [default: the test set's mistakes, the most confident first]
    #[arg(value_name = "IMAGE", id = "image")]
    queries: Vec<String>,
    #[command(flatten)]
    data: DataArgs,
    /// The layer whose outputs are compared [default: the one before the last]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// What the images are, by name or number, where that is not known
    #[arg(long = "is", value_name = "CLASS", requires = "image")]
    class: Option<String>,
    /// Training images for each
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u8).range(1..=50))]
    top: u8,
    /// Mistakes to look at, where no image is given
    #[arg(
        long, value_name = "N", default_value_t = 10, conflicts_with = "image",
        value_parser = clap::value_parser!(u8).range(1..=100)
    )]
    mistakes: u8,
    #[command(flatten)]
    pub(super) out: Out,
}

/// An image to find others for.
struct Query {
    name: String,
    picture: RgbImage,
    x: Array3<f32>,
    heading: String,
    predicted: usize,
    class: Option<usize>,
}

pub(super) fn draw(args: &SimilarArgs, model: &ModelFile, output: &Output) -> Result<Drawn, CliError> {
    let network = &model.network;
    let scale = &model.preprocessing.normalization;
    let layer = args.layer.as_deref().unwrap_or(explain::feature_layer(network));
    // A layer or a class that does not exist is said before any work.
    explain::units(network, layer)?;
    let class = args.class.as_ref().map(|class| find_class(class, model)).transpose()?;
    let given = if args.queries.is_empty() { Vec::new() } else { given(args, class, model)? };
    let splits = args.data.load(model, output)?;
    let most = args.data.images as usize;
    let (queries, heading) = if args.queries.is_empty() {
        mistakes(args, model, &splits.test, output)?
    } else {
        (given, "images and the training images most like them".to_owned())
    };

    let train = Images::new(&splits.train, scale).at_most(most);
    let (features, means) = {
        let bar = Bar::new("comparing with images", output.is_quiet());
        let progress = |done, all| bar.show(done, all);
        let train = train.progress(&progress);
        (explain::features(network, layer, &train)?, ClassMeans::new(network, &train)?)
    };

    let name = |class: usize| model.class_name(class);
    let mut bands = Vec::new();
    let mut results = Vec::new();
    for query in &queries {
        let one = query.x.view().insert_axis(Axis(0)).to_owned();
        let one = Dataset::from_arrays(one, vec![0], one_class_names(network.classes()))?;
        let own = explain::features(network, layer, &Images::new(&one, &Normalization::identity()))?;
        let found = explain::nearest(features.view(), own.row(0), args.top.into());
        let mut tiles = vec![Tile::new(query.picture.clone(), "the image")];
        let mut similar = Vec::new();
        for &(k, cosine) in &found {
            let (at, class) = (train.index(k), name(train.label(k)));
            tiles.push(Tile::new(pictures::thumbnail(&splits.train, at), format!("{class} ({cosine:.3})")));
            similar.push(json!({ "image": at, "class": class, "cosine": to_json(&cosine) }));
        }
        let mut result = json!({ "image": query.name, "predicted": name(query.predicted), "similar": similar });
        let mut heading = query.heading.clone();
        if let Some(class) = query.class {
            let readouts = means.read(network, query.x.view(), class)?;
            let lost = Readout::lost_at(&readouts, class).map(|readout| readout.layer.clone());
            heading.push_str(&format!(". {}", in_words(&readouts, class, lost.as_deref(), &name)));
            let readouts: Vec<_> = readouts
                .iter()
                .map(|r| json!({ "layer": r.layer, "nearest": name(r.nearest), "margin": to_json(&r.margin) }))
                .collect();
            (result["class"], result["lost_at"], result["layers"]) =
                (name(class).into(), to_json(&lost), readouts.into());
        }
        bands.push(band(&heading, tiles));
        results.push(result);
    }
    if bands.is_empty() {
        bands.push(band("No mistakes.", Vec::new()));
    }
    let note = format!(
        "Under each of the {} images nearest by the output of {layer}, among {} of the {} of {}: its class, and the cosine of \
         the angle between the outputs. Above: at each layer, the class whose training images have the nearest mean output.",
        args.top,
        thousands(train.len()),
        thousands(splits.train.len()),
        splits.train.name()
    );
    let title = format!("{}: {heading}", network.description().name);
    let words = format!("{} images, each with {} of {}", queries.len(), args.top, thousands(train.len()));
    let sheet = Sheet { title, bands, notes: vec![note], ..Sheet::default() };
    Ok((sheet.draw(), words, json!({ "layer": layer, "compared": train.len(), "images": results })))
}

/// The images that were named.
fn given(args: &SimilarArgs, class: Option<usize>, model: &ModelFile) -> Result<Vec<Query>, CliError> {
    let query = |image: Image| {
        let is = class.map_or(String::new(), |class| format!(", is {}", model.class_name(class)));
        Query {
            picture: sheet::picture(image.shown.view()),
            heading: format!("{}{is}", image.caption),
            class: class.or(image.label),
            predicted: image.predicted,
            name: image.name,
            x: image.x,
        }
    };
    Ok(read_images(&args.queries, None, model)?.into_iter().map(query).collect())
}

/// The most confident mistakes among the test images.
fn mistakes(
    args: &SimilarArgs,
    model: &ModelFile,
    data: &Dataset,
    output: &Output,
) -> Result<(Vec<Query>, String), CliError> {
    let scale = &model.preprocessing.normalization;
    let bar = Bar::new("testing images", output.is_quiet());
    let progress = |done, all| bar.show(done, all);
    let test = Images::new(data, scale).at_most(args.data.images as usize).progress(&progress);
    test.check(&model.network)?;
    let logits = explain::features(&model.network, model.network.description().last(), &test)?;
    let labels: Vec<usize> = (0..test.len()).map(|k| test.label(k)).collect();
    let temperature = model.temperature.as_ref().map_or(1.0, |temperature| temperature.value);
    let found = Evaluation::of_logits(logits.view(), &labels, temperature)
        .map_err(|(image, value)| ExplainError::NonFinite { image, value })?;
    let queries: Vec<Query> = found
        .mistakes
        .iter()
        .take(args.mistakes.into())
        .map(|mistake| {
            let at = test.index(mistake.index);
            let name = match data.path(at) {
                Some(path) => path.display().to_string(),
                None => format!("{}:{at}", data.name()),
            };
            let percent = |probability: f32| format!("{:.1} %", 100.0 * probability);
            let heading = format!(
                "{name}: taken for {} ({}), is {} ({})",
                model.class_name(mistake.predicted),
                percent(mistake.probability),
                model.class_name(mistake.label),
                percent(mistake.label_probability)
            );
            let x = data.batch(at..at + 1, scale).index_axis_move(Axis(0), 0);
            let picture = pictures::thumbnail(data, at);
            Query { name, picture, x, heading, predicted: mistake.predicted, class: Some(mistake.label) }
        })
        .collect();
    let heading = format!(
        "the {} most confident of {} mistakes on {} test images",
        queries.len(),
        thousands(found.images - found.correct),
        thousands(found.images)
    );
    Ok((queries, heading))
}

/// What the layers hold an image for, from the input to the classes.
fn in_words(readouts: &[Readout], class: usize, lost: Option<&str>, name: &impl Fn(usize) -> String) -> String {
    let spans: Vec<String> = readouts
        .chunk_by(|a, b| a.nearest == b.nearest)
        .map(|span| match (span, span.last()) {
            ([only], _) => format!("{} at {}", name(only.nearest), only.layer),
            ([first, ..], Some(last)) => format!("{} from {} to {}", name(first.nearest), first.layer, last.layer),
            _ => String::new(),
        })
        .collect();
    let class = name(class);
    let end = match lost {
        Some(layer) => format!("{class} is lost at {layer}"),
        None if readouts.iter().any(|readout| name(readout.nearest) == class) => format!("{class} is there at the end"),
        None => format!("{class} at no layer"),
    };
    format!("Nearest class mean: {}; {end}", spans.join(", "))
}
