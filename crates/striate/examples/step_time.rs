//! Times SimpleConvNet: a training step with Adam, and inference at batch 100 and 1.
//!
//! `cargo run --release -p striate --example step_time -- [THREADS] [SECONDS] [WORK]` prints one JSON object a line: the
//! median and the minimum over as many runs as fit, of the works whose names contain WORK.
//! `benches/peers/simple_convnet.py` runs it in turn with PyTorch.

use std::time::{Duration, Instant};
use striate::models::simple_convnet::SimpleConvNet;
use striate::network::{Mode, Network, Plan, Runner, StepKey};
use striate::optim::OptimizerOptions;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let threads: usize = arguments.next().map_or(Ok(2), |a| a.parse())?;
    let seconds: f64 = arguments.next().map_or(Ok(2.0), |a| a.parse())?;
    let wanted = arguments.next().unwrap_or_default();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    pool.install(|| {
        let mut network = Network::new(SimpleConvNet::default().description(), 1)?;
        let mut optimizer = OptimizerOptions::adam().build(network.parameters().len())?;
        let mut gradients = network.parameters().zeros_like();
        let mut training = runner(&network, 100, Mode::Training)?;
        let mut step = 0;
        let name = "training step, batch 100, Adam";
        time(name, &wanted, threads, seconds, || {
            training.loss_and_gradient(network.parameters(), &mut gradients, StepKey { seed: 1, step });
            optimizer.update(0.001, network.parameters_mut().as_mut_slice(), gradients.as_slice());
            step += 1;
        });
        for batch in [100, 1] {
            let mut inference = runner(&network, batch, Mode::Inference)?;
            time(&format!("inference, batch {batch}"), &wanted, threads, seconds, || {
                inference.predict(network.parameters());
            });
        }
        Ok(())
    })
}

fn runner(network: &Network, batch: usize, mode: Mode) -> Result<Runner, Box<dyn std::error::Error + Send + Sync>> {
    let mut runner = Runner::new(Plan::new(network.description(), batch, mode)?)?;
    runner.input_mut().iter_mut().enumerate().for_each(|(i, v)| *v = (i * 7919 % 255) as f32 / 255.0);
    runner.labels_mut().iter_mut().enumerate().for_each(|(i, l)| *l = i % 10);
    Ok(runner)
}

fn time(name: &str, wanted: &str, threads: usize, seconds: f64, mut run: impl FnMut()) {
    if !name.contains(wanted) {
        return;
    }
    (0..5).for_each(|_| run());
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_secs_f64(seconds) {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let (median, least) = (times[times.len() / 2], times[0]);
    println!(
        r#"{{"name":"{name}","threads":{threads},"ms":{median:.4},"least_ms":{least:.4},"runs":{}}}"#,
        times.len()
    );
}
