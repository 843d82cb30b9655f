//! Times single convolutions of AlexNet, VGG-11, ResNet-18 and two small networks: forward, gradient of the input, gradient of the weights.
//!
//! `cargo run --release -p striate --example layer_time -- [THREADS] [SECONDS] [NAME] [PASS]` prints one JSON object a line, for
//! the layers whose name contains NAME, all passes or the one named: milliseconds, and the fraction of the arithmetic ceiling that multiply-adds in registers reach
//! in the same run. With one thread it counts the thread's own time on the processor where the system tells it (Linux), so
//! that neighbours on a shared machine do not; with more, time on the clock. Winograd can go beyond the ceiling: operations
//! are counted as the definition has them.

use std::time::Instant;
use striate::kernels::{Probe, isa};
use striate::shape::{Rounding, Shape, Window};

/// Name, channels, side of the input, filters, kernel, stride, padding, batch (each is also timed at 1).
type Layer = (&'static str, usize, usize, usize, usize, usize, usize, usize);

const LAYERS: [Layer; 23] = [
    ("alexnet.conv1 11x11/4", 3, 224, 64, 11, 4, 2, 32),
    ("alexnet.conv2 5x5", 64, 27, 192, 5, 1, 2, 32),
    ("alexnet.conv3 3x3", 192, 13, 384, 3, 1, 1, 32),
    ("alexnet.conv4 3x3", 384, 13, 256, 3, 1, 1, 32),
    ("alexnet.conv5 3x3", 256, 13, 256, 3, 1, 1, 32),
    ("vgg11.conv1 3x3 at 224", 3, 224, 64, 3, 1, 1, 4),
    ("vgg11.conv2 3x3 at 112", 64, 112, 128, 3, 1, 1, 4),
    ("vgg11.conv4 3x3 at 56", 256, 56, 256, 3, 1, 1, 4),
    ("vgg11.conv6 3x3 at 28", 512, 28, 512, 3, 1, 1, 4),
    ("resnet18.stem 7x7/2", 3, 224, 64, 7, 2, 3, 16),
    ("resnet18.layer1 3x3 at 56", 64, 56, 64, 3, 1, 1, 16),
    ("resnet18.layer2 3x3 at 28", 128, 28, 128, 3, 1, 1, 16),
    ("resnet18.layer3 3x3 at 14", 256, 14, 256, 3, 1, 1, 16),
    ("resnet18.layer4 3x3 at 7", 512, 7, 512, 3, 1, 1, 16),
    ("resnet18.layer2 3x3/2", 64, 56, 128, 3, 2, 1, 16),
    ("resnet18.layer2 1x1/2", 64, 56, 128, 1, 2, 0, 16),
    ("bottleneck 1x1 at 56", 64, 56, 256, 1, 1, 0, 16),
    ("deep-convnet.conv2 3x3 at 28", 16, 28, 16, 3, 1, 1, 100),
    ("deep-convnet.conv4 3x3 at 14", 32, 14, 32, 3, 1, 2, 100),
    ("deep-convnet.conv6 3x3 at 8", 64, 8, 64, 3, 1, 1, 100),
    ("cifar-net.block1 3x3 at 31", 24, 31, 32, 3, 1, 1, 100),
    ("cifar-net.block2 3x3 at 15", 32, 15, 96, 3, 1, 1, 100),
    ("cifar-net.block2 3x3 at 7", 96, 7, 96, 3, 1, 1, 100),
];

/// A pass of a convolution, and what runs it.
type Pass = (&'static str, fn(&mut Probe));

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let threads: usize = arguments.next().map_or(Ok(1), |a| a.parse())?;
    let seconds: f64 = arguments.next().map_or(Ok(0.3), |a| a.parse())?;
    let wanted = arguments.next().unwrap_or_default();
    let pass_wanted = arguments.next();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    pool.install(|| {
        for (name, channels, side, filters, kernel, stride, padding, batch) in LAYERS {
            if !name.contains(&wanted) {
                continue;
            }
            let window = Window::square(kernel, stride, padding).rounding(Rounding::Floor);
            for batch in [batch, 1] {
                let mut probe = Probe::new(Shape::new(channels, side, side), filters, 1, window, batch)?;
                // The ceiling moves with the machine's load: measured beside each layer, for all threads together.
                let rounds = 1_000_000;
                let one = threads == 1;
                let ceiling = time(one, seconds / 3.0, || {
                    rayon::broadcast(|_| isa::ceiling(rounds));
                });
                let ceiling = (isa::ceiling(rounds) * threads as u64) as f64 / ceiling;
                let prepare = time(one, seconds / 3.0, || probe.prepare());
                let passes: [Pass; 3] = [
                    ("forward", Probe::forward),
                    ("backward_input", Probe::backward_input),
                    ("backward_weights", Probe::backward_weights),
                ];
                let (flops, method) = (probe.flops() as f64, probe.method());
                for (pass, run) in passes.into_iter().filter(|p| pass_wanted.as_ref().is_none_or(|wanted| wanted == p.0)) {
                    let ms = time(one, seconds, || run(&mut probe));
                    let fraction = flops / ms / ceiling;
                    println!(
                        r#"{{"name":"{name}","pass":"{pass}","batch":{batch},"threads":{threads},"ms":{ms:.3},"fraction":{fraction:.3},"ceiling_gflops":{:.1},"prepare_ms":{prepare:.3},"method":"{method}"}}"#,
                        ceiling / 1e6
                    );
                }
            }
        }
        Ok(())
    })
}

/// Mean milliseconds of a run, over as many as fit: on the processor for one thread, else on the clock.
fn time(one: bool, seconds: f64, mut run: impl FnMut()) -> f64 {
    run();
    let (begun, processor) = (Instant::now(), processor_seconds().filter(|_| one));
    let mut runs = 0;
    while runs == 0 || begun.elapsed().as_secs_f64() < seconds {
        run();
        runs += 1;
    }
    let elapsed = match (processor, processor_seconds()) {
        (Some(before), Some(after)) => after - before,
        _ => begun.elapsed().as_secs_f64(),
    };
    elapsed / f64::from(runs) * 1e3
}

/// This thread's time on the processor, where the system keeps it.
fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<f64>().ok()? * 1e-9)
}
