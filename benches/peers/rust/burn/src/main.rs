//! burn on its CPU backend of plain Rust (Flex): `burn-peer THREADS SECONDS NAME` prints one JSON object a line for
//! SimpleConvNet (a training step with Adam, inference) or AlexNet in torchvision's shape (inference).

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::prelude::*;
use burn::tensor::{Distribution, activation::relu};
use std::time::Instant;

#[derive(Module, Debug)]
struct SimpleConvNet {
    conv: Conv2d,
    pool: MaxPool2d,
    hidden: Linear,
    output: Linear,
}

impl SimpleConvNet {
    fn new(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([1, 30], [5, 5]).init(device),
            pool: MaxPool2dConfig::new([2, 2]).init(),
            hidden: LinearConfig::new(4320, 100).init(device),
            output: LinearConfig::new(100, 10).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.conv.forward(x)));
        self.output.forward(relu(self.hidden.forward(x.flatten(1, 3))))
    }
}

#[derive(Module, Debug)]
struct AlexNet {
    convolutions: Vec<Conv2d>,
    pool: MaxPool2d,
    affine: Vec<Linear>,
}

impl AlexNet {
    fn new(device: &Device) -> Self {
        let conv = |channels, kernel, stride, padding| {
            let padding = PaddingConfig2d::Explicit(padding, padding, padding, padding);
            Conv2dConfig::new(channels, [kernel, kernel]).with_stride([stride, stride]).with_padding(padding).init(device)
        };
        Self {
            convolutions: vec![
                conv([3, 64], 11, 4, 2),
                conv([64, 192], 5, 1, 2),
                conv([192, 384], 3, 1, 1),
                conv([384, 256], 3, 1, 1),
                conv([256, 256], 3, 1, 1),
            ],
            pool: MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).init(),
            affine: [(9216, 4096), (4096, 4096), (4096, 1000)].map(|(i, o)| LinearConfig::new(i, o).init(device)).to_vec(),
        }
    }

    fn forward(&self, mut x: Tensor<4>) -> Tensor<2> {
        for (i, convolution) in self.convolutions.iter().enumerate() {
            x = relu(convolution.forward(x));
            if [0, 1, 4].contains(&i) {
                x = self.pool.forward(x);
            }
        }
        let mut x: Tensor<2> = x.flatten(1, 3);
        for (i, affine) in self.affine.iter().enumerate() {
            x = affine.forward(x);
            if i < 2 {
                x = relu(x);
            }
        }
        x
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let threads: usize = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(2);
    let seconds: f64 = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(1.0);
    let name = arguments.next().unwrap_or_else(|| "SimpleConvNet".into());
    // SAFETY: nothing else runs yet. Its pool of threads reads this when it starts.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    let time = |work: &str, run: &mut dyn FnMut()| time(&name, work, threads, seconds, run);
    let device = Device::flex();
    match name.as_str() {
        "SimpleConvNet" => {
            let learning = device.clone().autodiff();
            let mut net = Some(SimpleConvNet::new(&learning));
            let loss = CrossEntropyLossConfig::new().init(&learning);
            let x = Tensor::<4>::random([100, 1, 28, 28], Distribution::Uniform(0.0, 1.0), &learning);
            let t = Tensor::<1, Int>::from_ints(std::array::from_fn::<i32, 100, _>(|i| i as i32 % 10), &learning);
            let mut optimizer: ModuleOptimizer = AdamConfig::new().init();
            time("training step, batch 100", &mut || {
                let now = net.take().unwrap();
                let gradients = loss.forward(now.forward(x.clone()), t.clone()).backward();
                let gradients = GradientsParams::from_grads(gradients, &now);
                net = Some(optimizer.step(0.001, now, gradients));
            });
            let net = SimpleConvNet::new(&device);
            for batch in [100, 1] {
                let x = Tensor::<4>::random([batch, 1, 28, 28], Distribution::Uniform(0.0, 1.0), &device);
                time(&format!("inference, batch {batch}"), &mut || {
                    std::hint::black_box(net.forward(x.clone()).into_data());
                });
            }
        }
        "alexnet-torchvision" => {
            let net = AlexNet::new(&device);
            for batch in [32, 1] {
                let x = Tensor::<4>::random([batch, 3, 224, 224], Distribution::Uniform(0.0, 1.0), &device);
                time(&format!("inference, batch {batch}"), &mut || {
                    std::hint::black_box(net.forward(x.clone()).into_data());
                });
            }
        }
        _ => {}
    }
}

fn time(name: &str, work: &str, threads: usize, seconds: f64, run: &mut dyn FnMut()) {
    (0..3).for_each(|_| run());
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || begun.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!(r#"{{"name":"{name}: {work}","threads":{threads},"ms":{:.4}}}"#, times[times.len() / 2]);
}
