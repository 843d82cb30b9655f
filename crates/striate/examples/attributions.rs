//! The other side of `benches/peers/explain.py`: attributions on given weights and images.
//!
//! `attributions MODEL C,H,W CLASSES CLASS LAYER DIR [KEY=VALUE...]` reads `weights.f32` (all parameters, in our order) and
//! `x.f32` (C, H, W) from DIR, little-endian, and writes one `NAME.f32` there for each attribution; besides, the noise that
//! SmoothGrad added (`noise.f32`), and by how much integrated gradients miss the score's change and that change
//! (`completeness.f32`).

use ndarray::Array3;
use std::path::Path;
use striate::explain::{self, CamRule, OcclusionOptions, SmoothGrad};
use striate::layers::ReluRule;
use striate::models::{Request, build};
use striate::network::Network;
use striate::shape::Shape;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, input, classes, class, layer, directory, settings @ ..] = arguments.as_slice() else {
        return Err("usage: attributions MODEL C,H,W CLASSES CLASS LAYER DIR [KEY=VALUE...]".into());
    };
    let settings: Vec<(String, String)> =
        settings.iter().filter_map(|s| s.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
    let sizes: Vec<usize> = input.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let &[channels, height, width] = sizes.as_slice() else { return Err("C,H,W is needed".into()) };
    let request = Request {
        input: Some(Shape::new(channels, height, width)),
        classes: Some(classes.parse()?),
        settings: &settings,
    };
    let mut network = Network::new(build(model, &request)?, 1)?;
    let (class, directory) = (class.parse()?, Path::new(directory));
    let weights = read(&directory.join("weights.f32"))?;
    let ours = network.parameters_mut().as_mut_slice();
    if weights.len() != ours.len() {
        return Err(format!("weights.f32 holds {} numbers, {model} has {}", weights.len(), ours.len()).into());
    }
    ours.copy_from_slice(&weights);
    let x = Array3::from_shape_vec((channels, height, width), read(&directory.join("x.f32"))?)?;
    let write = |name: &str, values: Vec<f32>| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(directory.join(format!("{name}.f32")), bytes)
    };
    for (name, rule) in
        [("gradient", ReluRule::Gradient), ("guided", ReluRule::Guided), ("deconvnet", ReluRule::Deconvolution)]
    {
        write(name, explain::gradient(&network, x.view(), class, rule)?.into_iter().collect())?;
    }
    let baseline = Array3::zeros(x.dim());
    let integrated = explain::integrated_gradients(&network, x.view(), class, baseline.view(), 50)?;
    write("completeness", vec![integrated.error, integrated.score - integrated.baseline_score])?;
    write("integrated", integrated.values.into_iter().collect())?;
    let smooth = SmoothGrad::default();
    write("smooth-grad", explain::smooth_grad(&network, x.view(), class, &smooth)?.into_iter().collect())?;
    let range = x.iter().copied().fold(f32::MIN, f32::max) - x.iter().copied().fold(f32::MAX, f32::min);
    let noise = (0..smooth.samples).flat_map(|sample| (0..x.len()).map(move |i| smooth.noise_at(range, sample, i)));
    write("noise", noise.collect())?;
    let options = OcclusionOptions { window: 5, stride: 2, value: 0.0 };
    write("occlusion", explain::occlusion(&network, x.view(), class, &options)?.drop.into_iter().collect())?;
    for (name, rule) in [("grad-cam", CamRule::GradCam), ("layer-cam", CamRule::LayerCam)] {
        write(name, explain::cam(&network, x.view(), class, Some(layer), rule)?.heat.into_iter().collect())?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<f32>, Error> {
    Ok(std::fs::read(path)?.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}
