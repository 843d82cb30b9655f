//! `embedding`: the features of many images in two dimensions.

use super::{DataArgs, Made, PlotOut, title};
use crate::error::CliError;
use crate::output::{Output, thousands};
use crate::progress::Bar;
use clap::{Args, ValueEnum};
use serde_json::json;
use striate::draw::Scatter;
use striate::explain::{self, Images, TsneOptions};
use striate::formats::ModelFile;

const EXAMPLES: &str = "Examples:
  striate explain runs/simple-convnet-mnist-1 embedding
  striate explain runs/simple-convnet-mnist-1 embedding --layer input --method tsne --images 2000
  striate explain runs/simple-convnet-mnist-1 embedding --out embedding.svg

Principal components show the two directions in which the features differ most, and distances are true along them. t-SNE
keeps neighbours together; distances between clusters and their sizes say nothing. It takes about a minute for 10,000 images.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    /// Principal components
    Pca,
    /// Neighbours stay neighbours
    Tsne,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct EmbeddingArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Which part of the data
    #[arg(long, value_parser = ["train", "test"], default_value = "test")]
    split: String,
    /// The layer whose outputs are laid out, or `input` for the pixels [default: the one before the last]
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// How two dimensions are found
    #[arg(long, value_enum, default_value_t = Method::Pca)]
    method: Method,
    /// For t-SNE: about how many neighbours each image is to keep [default: 30]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    perplexity: Option<u16>,
    #[command(flatten)]
    pub(super) out: PlotOut,
}

pub(super) fn make(args: &EmbeddingArgs, model: &ModelFile, output: &Output) -> Result<Made, CliError> {
    if args.perplexity.is_some() && args.method == Method::Pca {
        return Err(CliError::Usage("--perplexity is for --method tsne".into()));
    }
    let network = &model.network;
    let layer = args.layer.as_deref().unwrap_or(explain::feature_layer(network));
    // Said before any work.
    explain::units(network, layer)?;
    let splits = args.data.load(model, output)?;
    let data = if args.split == "train" { splits.train } else { splits.test };
    let images = Images::new(&data, &model.preprocessing.normalization).at_most(args.data.images as usize);
    let features = {
        let bar = Bar::new("looking at images", output.is_quiet());
        explain::features(network, layer, &images.progress(&|done, all| bar.show(done, all)))?
    };
    let (points, axes, method, explained) = match args.method {
        Method::Pca => {
            let found = explain::pca(features.view());
            let axis = |words: &str, k: usize| {
                format!("{words} component: {:.1} % of the variance", 100.0 * found.explained[k])
            };
            (found.points, Some([axis("first", 0), axis("second", 1)]), "principal components", Some(found.explained))
        }
        Method::Tsne => {
            let perplexity = args.perplexity.map_or(TsneOptions::default().perplexity, f32::from);
            let options = TsneOptions { perplexity, ..TsneOptions::default() };
            let bar = Bar::new("t-SNE, step", output.is_quiet());
            let points = explain::tsne(features.view(), &options, &|done, all| bar.show(done, all))?;
            (points, None, "t-SNE: only who stands beside whom has a meaning", None)
        }
    };
    let classes: Vec<usize> = (0..images.len()).map(|k| images.label(k)).collect();
    let scatter = Scatter {
        title: title(model, &format!("Outputs of {layer}")),
        subtitle: format!(
            "{} of the {} images of {}; {method}",
            thousands(images.len()),
            thousands(data.len()),
            data.name()
        ),
        axes,
        names: data.class_names().to_vec(),
        points: points.rows().into_iter().map(|row| [row[0].into(), row[1].into()]).collect(),
        classes: classes.clone(),
    };
    let points: Vec<_> = points
        .rows()
        .into_iter()
        .zip(&classes)
        .enumerate()
        .map(|(k, (row, &class))| json!([images.index(k), class, row[0], row[1]]))
        .collect();
    let words = format!("{} points from the {} outputs of {layer}", thousands(images.len()), features.ncols());
    let json = json!({
        "layer": layer, "data": data.name(), "features": features.ncols(), "explained": explained,
        "columns": ["image", "class", "x", "y"], "points": points,
    });
    Made::plot(&scatter, &args.out, words, Vec::new(), json)
}
