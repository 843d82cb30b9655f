//! Writes every model of the zoo, with fresh weights, into a directory: `NAME.safetensors` with a few inputs and the
//! logits they give, `NAME.onnx`, and `NAME-u8.onnx` with preprocessing. `benches/peers/onnx_export.py` runs them elsewhere.
//! Without a directory it prints the models' names.

use ndarray::Array4;
use std::path::PathBuf;
use striate::data::preprocessing::{Fit, Normalization, Preprocessing};
use striate::formats::{ModelFile, OnnxOptions, TestVectors, to_onnx};
use striate::models::{NAMES, Request, build};
use striate::network::Network;
use striate::random::{Purpose, Random};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        NAMES.iter().for_each(|name| println!("{name}"));
        return Ok(());
    };
    let wanted: Vec<String> = std::env::args().skip(2).collect();
    std::fs::create_dir_all(&directory)?;
    for name in NAMES.iter().filter(|name| wanted.is_empty() || wanted.iter().any(|w| w == *name)) {
        let network = Network::new(build(name, &Request::default())?, 1)?;
        let input = network.input();
        let normalization =
            Normalization::new(vec![0.45; input.channels], vec![0.225; input.channels], input.channels)?;
        // What the normalisation makes of random bytes, so that both graphs can be given the same pictures.
        let random = Random::new(1, Purpose::Test, 0);
        let mut place = 0;
        let inputs = Array4::from_shape_simple_fn((2, input.channels, input.height, input.width), || {
            place += 1;
            ((random.uniform(place) * 255.0).floor() / 255.0 - 0.45) / 0.225
        });
        let model = ModelFile {
            class_names: (0..network.classes()).map(|class| format!("class {class}")).collect(),
            preprocessing: Preprocessing { shape: input, fit: Fit::Stretch, normalization },
            training: serde_json::Value::Null,
            metrics: serde_json::Value::Null,
            test_vectors: TestVectors::record(&network, inputs)?,
            temperature: None,
            quantized: None,
            network,
        };
        model.save(&directory.join(format!("{name}.safetensors")))?;
        for (ending, preprocessing) in [(".onnx", false), ("-u8.onnx", true)] {
            let bytes = to_onnx(&model, OnnxOptions { preprocessing })?;
            std::fs::write(directory.join(format!("{name}{ending}")), bytes)?;
        }
        println!("{name}");
    }
    Ok(())
}
