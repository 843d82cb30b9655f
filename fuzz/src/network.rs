//! Networks made of the fuzzer's choices: described, planned, run forward and backward, all of it twice.

use arbitrary::{Arbitrary, Result, Unstructured};
use ndarray::Array4;
use striate::layers::{
    AdaptivePoolingOptions, AddOptions, AffineOptions, BatchNormOptions, ClipOptions, ConcatOptions,
    ConvolutionOptions, DropoutOptions, FlattenOptions, GeluOptions, HardSwishOptions, Init, LeakyReluOptions,
    LocalResponseNormOptions, PoolingOptions, ReluOptions, SigmoidOptions, SiluOptions, SoftmaxOptions, TanhOptions,
};
use striate::network::{Description, Mode, Network, Plan, Runner, StepKey};
use striate::shape::{Padding, Rounding, Shape, Window};

/// One layer, its numbers still to be brought into their ranges.
#[derive(Arbitrary, Debug)]
enum Choice {
    Convolution { filters: u8, window: Drawn, groups: u8, bias: bool },
    Depthwise { window: Drawn },
    MaxPooling { window: Drawn },
    AveragePooling { window: Drawn, count_padding: bool },
    Adaptive { rows: u8, columns: u8 },
    Affine { outputs: u8 },
    Activation { which: u8 },
    BatchNorm,
    LocalResponseNorm { size: u8 },
    Dropout { ratio: u8 },
    Flatten,
    Add { with: u8 },
    Concat { with: u8 },
    Softmax,
}

#[derive(Arbitrary, Debug)]
struct Drawn {
    kernel: (u8, u8),
    stride: (u8, u8),
    padding: [u8; 4],
    dilation: (u8, u8),
    rounding: u8,
}

impl Drawn {
    fn window(&self) -> Window {
        let pair = |(a, b): (u8, u8), most: u8| (usize::from(a % most) + 1, usize::from(b % most) + 1);
        let [top, left, bottom, right] = self.padding.map(|size| usize::from(size % 4));
        Window {
            kernel: pair(self.kernel, 7),
            stride: pair(self.stride, 4),
            padding: Padding { top, left, bottom, right },
            dilation: pair(self.dilation, 3),
            rounding: [Rounding::Exact, Rounding::Floor, Rounding::Ceil][usize::from(self.rounding % 3)],
        }
    }
}

fn description(draw: &mut Unstructured<'_>) -> Result<Description> {
    let (channels, height, width) =
        (draw.int_in_range(1..=20)?, draw.int_in_range(1..=24)?, draw.int_in_range(1..=24)?);
    let mut net = Description::new("fuzz", Shape::new(channels, height, width));
    let mut names: Vec<String> = vec!["input".into()];
    for number in 0..draw.int_in_range(1..=12)? {
        let name = format!("layer{number}");
        let last = names.last().cloned().unwrap_or_default();
        let earlier = |with: u8| names[usize::from(with) % names.len()].clone();
        let here = net.shapes().ok().and_then(|shapes| shapes.last().copied()).unwrap_or(net.input);
        let changed = match Choice::arbitrary(draw)? {
            Choice::Convolution { filters, window, groups, bias } => {
                let options = ConvolutionOptions::new(usize::from(filters % 40) + 1, window.window(), Init::He);
                let options = options.groups(if groups % 4 == 0 { usize::from(groups / 4 % 5) + 1 } else { 1 });
                net.clone().with(&name, if bias { options } else { options.without_bias() })
            }
            Choice::Depthwise { window } => {
                let options = ConvolutionOptions::new(here.channels, window.window(), Init::He);
                net.clone().with(&name, options.groups(here.channels))
            }
            Choice::MaxPooling { window } => net.clone().with(&name, PoolingOptions::max(window.window())),
            Choice::AveragePooling { window, count_padding } => {
                net.clone().with(&name, PoolingOptions { count_padding, ..PoolingOptions::average(window.window()) })
            }
            Choice::Adaptive { rows, columns } => {
                let output = (usize::from(rows % 6) + 1, usize::from(columns % 6) + 1);
                net.clone().with(&name, AdaptivePoolingOptions { output })
            }
            Choice::Affine { outputs } => {
                net.clone().with(&name, AffineOptions::new(usize::from(outputs) + 1, Init::Xavier))
            }
            Choice::Activation { which } => match which % 8 {
                0 => net.clone().with(&name, ReluOptions {}),
                1 => net.clone().with(&name, SigmoidOptions {}),
                2 => net.clone().with(&name, TanhOptions {}),
                3 => net.clone().with(&name, LeakyReluOptions { slope: 0.1 }),
                4 => net.clone().with(&name, GeluOptions {}),
                5 => net.clone().with(&name, SiluOptions {}),
                6 => net.clone().with(&name, HardSwishOptions {}),
                _ => net.clone().with(&name, ClipOptions { low: 0.0, high: 6.0 }),
            },
            Choice::BatchNorm => net.clone().with(&name, BatchNormOptions::default()),
            Choice::LocalResponseNorm { size } => {
                let options = LocalResponseNormOptions { size: usize::from(size % 7), ..Default::default() };
                net.clone().with(&name, options)
            }
            Choice::Dropout { ratio } => net.clone().with(&name, DropoutOptions { ratio: f32::from(ratio) / 256.0 }),
            Choice::Flatten => net.clone().with(&name, FlattenOptions {}),
            Choice::Add { with } => net.clone().with_inputs(&name, AddOptions {}, [last, earlier(with)]),
            Choice::Concat { with } => net.clone().with_inputs(&name, ConcatOptions {}, [last, earlier(with)]),
            Choice::Softmax => net.clone().with(&name, SoftmaxOptions {}),
        };
        // What does not fit here is left out, so that deep networks come about.
        if changed.shapes().is_ok() {
            net = changed;
            names.push(name);
        }
    }
    Ok(net)
}

/// Plans and runs a network; the same network must give the same bits again.
pub fn network(data: &[u8]) {
    let mut draw = Unstructured::new(data);
    let Ok(description) = description(&mut draw) else { return };
    let batch = draw.int_in_range(1..=5).unwrap_or(1);
    let Ok(summary) = description.summary(batch) else { return };
    if summary.flops > 4_000_000 || summary.peak_bytes > 64 << 20 {
        return;
    }
    let network = Network::new(description.clone(), 1).expect("a summary was made of it");
    let Shape { channels, height, width } = network.input();
    let x = Array4::from_shape_fn((batch, channels, height, width), |(n, c, y, x)| {
        ((n * 7 + c * 5 + y * 3 + x) % 17) as f32 / 8.0 - 1.0
    });
    let once = network.predict(x.view()).expect("it can be run");
    let twice = network.predict(x.view()).expect("it can be run");
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
    assert_eq!(once.dim(), (batch, network.classes()));
    assert!(once.iter().zip(&twice).all(|(a, b)| a.to_bits() == b.to_bits()), "two runs differ: {description:?}");
    // A summary plans for training too, but some networks are only for inference.
    let Ok(plan) = Plan::new(&description, batch, Mode::Training) else { return };
    let mut runner = Runner::new(plan).expect("it can be trained");
    runner.input_mut().copy_from_slice(x.as_slice().expect("it is contiguous"));
    runner.labels_mut().iter_mut().enumerate().for_each(|(n, label)| *label = n % network.classes());
    let mut gradients = network.parameters().zeros_like();
    let mut run = |gradients: &mut striate::network::Parameters| {
        gradients.as_mut_slice().fill(f32::NAN);
        let result = runner.loss_and_gradient(network.parameters(), gradients, Some(StepKey { seed: 1, step: 0 }));
        (result.loss.to_bits(), bits(gradients.as_slice()))
    };
    assert!(run(&mut gradients) == run(&mut gradients), "two training steps differ: {description:?}");
}
