//! Times networks: a training step, and inference of a batch and of one image.
//!
//! `cargo run --release -p striate --example step_time -- [THREADS] [SECONDS] [WORK] [BATCH]` prints one JSON object a line: the
//! median and the least time over as many runs as fit, and the processor time a run took over all threads (where Linux tells), of
//! the works whose names contain WORK. `benches/peers` runs it in turn with other engines. The large networks run only where WORK
//! begins with their name (`alexnet-torchvision`, `resnet18: inference`).
//!
//! With `STEPS=1` in the environment the same goes for every step of the plan instead: the least milliseconds of its
//! preparation of weights, its forward pass, its backward pass, and of that the gradients of its parameters.

use std::time::{Duration, Instant};
use striate::layers::{AffineOptions, ConvolutionOptions, Init, Layer, PoolingOptions, ReluOptions, SigmoidOptions};
use striate::models::{self, simple_convnet::SimpleConvNet};
use striate::network::{Description, Mode, Network, Parameters, Plan, Runner, StepKey, StepTime};
use striate::optim::OptimizerOptions;
use striate::shape::{Shape, Window};

/// Networks of the zoo for images of 224 x 224, and their batch.
const LARGE: [(&str, usize); 7] = [
    ("alexnet", 32),
    ("alexnet-torchvision", 32),
    ("vgg11", 16),
    ("resnet18", 16),
    ("resnet34", 16),
    ("resnet50", 16),
    ("mobilenet-v2", 16),
];

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let threads: usize = arguments.next().map_or(Ok(2), |a| a.parse())?;
    let seconds: f64 = arguments.next().map_or(Ok(2.0), |a| a.parse())?;
    let wanted = arguments.next().unwrap_or_default();
    let batch: Option<usize> = arguments.next().map(|a| a.parse()).transpose()?;
    let clock = Clock { threads, seconds, wanted, batch, steps: std::env::var_os("STEPS").is_some() };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    pool.install(|| {
        clock.network("SimpleConvNet", SimpleConvNet::default().description(), 100, OptimizerOptions::adam())?;
        let momentum: OptimizerOptions = "momentum".parse()?;
        let classic = lenet(SigmoidOptions {}, PoolingOptions::average);
        clock.network("LeNet, sigmoid and average", classic, 64, momentum)?;
        clock.network("LeNet, ReLU and max", lenet(ReluOptions {}, PoolingOptions::max), 64, momentum)?;
        for name in ["deep-convnet", "cifar-net"] {
            clock.network(name, models::build(name, &models::Request::default())?, 100, OptimizerOptions::adam())?;
        }
        for (name, batch) in LARGE {
            if clock.wanted.split(':').next() == Some(name) {
                clock.network(name, models::build(name, &models::Request::default())?, batch, momentum)?;
            }
        }
        Ok(())
    })
}

/// LeNet for 28 x 28 images: two convolutions with an activation and a 2 x 2 pooling each, then three affine layers.
fn lenet(activation: impl Into<Layer> + Clone, pool: impl Fn(Window) -> PoolingOptions) -> Description {
    let convolution = |filters, padding| ConvolutionOptions::new(filters, Window::square(5, 1, padding), Init::He);
    let affine = |outputs| AffineOptions::new(outputs, Init::He);
    Description::new("lenet", Shape::new(1, 28, 28))
        .with("Conv1", convolution(6, 2))
        .with("Activation1", activation.clone())
        .with("Pool1", pool(Window::square(2, 2, 0)))
        .with("Conv2", convolution(16, 0))
        .with("Activation2", activation.clone())
        .with("Pool2", pool(Window::square(2, 2, 0)))
        .with("Affine1", affine(120))
        .with("Activation3", activation.clone())
        .with("Affine2", affine(84))
        .with("Activation4", activation)
        .with("Affine3", affine(10))
}

struct Clock {
    threads: usize,
    seconds: f64,
    wanted: String,
    /// In place of the usual batch.
    batch: Option<usize>,
    /// Whether to time the plan's steps instead of the whole.
    steps: bool,
}

impl Clock {
    fn network(&self, name: &str, description: Description, batch: usize, rule: OptimizerOptions) -> Result<(), Error> {
        let works = ["training step", "inference"].map(|work| format!("{name}: {work}"));
        if !works.iter().any(|work| work.contains(&self.wanted) || self.wanted.starts_with(work)) {
            return Ok(());
        }
        let batch = self.batch.unwrap_or(batch);
        let mut network = Network::new(description, 1)?;
        let mut optimizer = rule.build(network.parameters().len())?;
        let mut gradients = network.parameters().zeros_like();
        let work = format!("{name}: training step, batch {batch}");
        if self.wants(&work) {
            let mut training = runner(&network, batch, Mode::Training)?;
            let mut step = 0;
            if self.steps {
                self.time_steps(&work, &mut training, &network, &mut gradients);
                self.time(&format!("{work}, optimizer"), || {
                    optimizer.update(0.001, network.parameters_mut().as_mut_slice(), gradients.as_slice());
                });
            } else {
                self.time(&work, || {
                    training.loss_and_gradient(network.parameters(), &mut gradients, StepKey { seed: 1, step });
                    optimizer.update(0.001, network.parameters_mut().as_mut_slice(), gradients.as_slice());
                    step += 1;
                });
            }
        }
        for batch in [batch, 1].into_iter().take(batch.min(2)) {
            let work = format!("{name}: inference, batch {batch}");
            if self.wants(&work) {
                let mut inference = runner(&network, batch, Mode::Inference)?;
                if self.steps {
                    self.time_steps(&work, &mut inference, &network, &mut gradients);
                } else {
                    self.time(&work, || {
                        inference.predict(network.parameters());
                    });
                }
            }
        }
        Ok(())
    }

    fn wants(&self, work: &str) -> bool {
        work.contains(&self.wanted)
    }

    fn time_steps(&self, work: &str, runner: &mut Runner, network: &Network, gradients: &mut Parameters) {
        let least = |best: &mut StepTime, now: StepTime| {
            best.prepare = best.prepare.min(now.prepare);
            best.forward = best.forward.min(now.forward);
            best.backward = best.backward.min(now.backward);
            best.backward_weights = best.backward_weights.min(now.backward_weights);
        };
        let mut best = runner.profile(network.parameters(), gradients);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs_f64(self.seconds) {
            let now = runner.profile(network.parameters(), gradients);
            best.iter_mut().zip(now).for_each(|(best, now)| least(best, now));
        }
        for StepTime { name, prepare, forward, backward, backward_weights } in best {
            let [prepare, forward, backward, weights] =
                [prepare, forward, backward, backward_weights].map(|d| d.as_secs_f64() * 1e3);
            println!(
                r#"{{"name":"{work}","threads":{},"step":"{name}","prepare_ms":{prepare:.4},"forward_ms":{forward:.4},"backward_ms":{backward:.4},"backward_weights_ms":{weights:.4}}}"#,
                self.threads
            );
        }
    }

    fn time(&self, name: &str, mut run: impl FnMut()) {
        let warm = Instant::now();
        for _ in 0..5 {
            run();
            if warm.elapsed() > Duration::from_secs_f64(self.seconds) {
                break;
            }
        }
        let (begun, used, mut times) = (Instant::now(), processor_ms(), Vec::new());
        while times.is_empty() || begun.elapsed() < Duration::from_secs_f64(self.seconds) {
            let start = Instant::now();
            run();
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let used = (processor_ms() - used) / times.len() as f64;
        times.sort_by(f64::total_cmp);
        let (median, least) = (times[times.len() / 2], times[0]);
        println!(
            r#"{{"name":"{name}","threads":{},"ms":{median:.4},"least_ms":{least:.4},"processor_ms":{used:.4},"runs":{}}}"#,
            self.threads,
            times.len()
        );
    }
}

fn runner(network: &Network, batch: usize, mode: Mode) -> Result<Runner, Error> {
    let mut runner = Runner::new(Plan::new(network.description(), batch, mode)?)?;
    runner.input_mut().iter_mut().enumerate().for_each(|(i, v)| *v = (i * 7919 % 255) as f32 / 255.0);
    runner.labels_mut().iter_mut().enumerate().for_each(|(i, l)| *l = i % 10);
    Ok(runner)
}

/// Processor time of all threads so far, in ms; 0 where /proc does not tell.
fn processor_ms() -> f64 {
    let nanoseconds = |task: std::fs::DirEntry| -> Option<f64> {
        std::fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(nanoseconds).sum::<f64>() / 1e6
}
