//! candle on its own CPU backend: `candle-peer THREADS SECONDS NAME` prints one JSON object a line for SimpleConvNet (a
//! training step with AdamW at weight decay 0, which is Adam; inference) or AlexNet in torchvision's shape (inference).

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::{AdamW, Conv2d, Conv2dConfig, Linear, Optimizer, ParamsAdamW, VarBuilder, VarMap, conv2d, linear, loss};
use std::time::Instant;

struct Net {
    /// Each with whether a max pooling follows.
    convolutions: Vec<(Conv2d, bool)>,
    /// Side and stride of the pooling.
    pool: (usize, usize),
    affine: Vec<Linear>,
}

impl Net {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (convolution, pool) in &self.convolutions {
            x = convolution.forward(&x)?.relu()?;
            if *pool {
                x = x.max_pool2d_with_stride(self.pool.0, self.pool.1)?;
            }
        }
        x = x.flatten_from(1)?;
        for (i, affine) in self.affine.iter().enumerate() {
            x = affine.forward(&x)?;
            if i + 1 < self.affine.len() {
                x = x.relu()?;
            }
        }
        Ok(x)
    }

    fn simple(vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            convolutions: vec![(conv2d(1, 30, 5, Default::default(), vb.pp("c"))?, true)],
            pool: (2, 2),
            affine: vec![linear(4320, 100, vb.pp("a1"))?, linear(100, 10, vb.pp("a2"))?],
        })
    }

    fn alexnet(vb: &VarBuilder) -> Result<Self> {
        let sizes = [(3, 64, 11, 4, 2, true), (64, 192, 5, 1, 2, true), (192, 384, 3, 1, 1, false)];
        let more = [(384, 256, 3, 1, 1, false), (256, 256, 3, 1, 1, true)];
        let mut convolutions = Vec::new();
        for (i, (channels, filters, kernel, stride, padding, pool)) in sizes.into_iter().chain(more).enumerate() {
            let config = Conv2dConfig { stride, padding, ..Default::default() };
            convolutions.push((conv2d(channels, filters, kernel, config, vb.pp(format!("c{i}")))?, pool));
        }
        let mut affine = Vec::new();
        for (i, (inputs, outputs)) in [(9216, 4096), (4096, 4096), (4096, 1000)].into_iter().enumerate() {
            affine.push(linear(inputs, outputs, vb.pp(format!("a{i}")))?);
        }
        Ok(Self { convolutions, pool: (3, 2), affine })
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let threads: usize = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(2);
    let seconds: f64 = arguments.next().and_then(|a| a.parse().ok()).unwrap_or(1.0);
    let name = arguments.next().unwrap_or_else(|| "SimpleConvNet".into());
    // SAFETY: nothing else runs yet. Its pool of threads reads this when it starts.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    let time = |work: &str, run: &mut dyn FnMut() -> Result<()>| time(&name, work, threads, seconds, run);
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let (net, channels, side, batch) = match name.as_str() {
        "SimpleConvNet" => (Net::simple(&vb)?, 1, 28, 100),
        "alexnet-torchvision" => (Net::alexnet(&vb)?, 3, 224, 32),
        _ => return Ok(()),
    };
    let images = |n: usize| Tensor::rand(0f32, 1f32, (n, channels, side, side), &Device::Cpu);
    if name == "SimpleConvNet" {
        let x = images(batch)?;
        let t = Tensor::from_iter((0..batch as u32).map(|i| i % 10), &Device::Cpu)?;
        let options = ParamsAdamW { lr: 0.001, weight_decay: 0.0, ..Default::default() };
        let mut optimizer = AdamW::new(variables.all_vars(), options)?;
        time(&format!("training step, batch {batch}"), &mut || {
            optimizer.backward_step(&loss::cross_entropy(&net.forward(&x)?, &t)?)
        })?;
    }
    for batch in [batch, 1] {
        let x = images(batch)?;
        time(&format!("inference, batch {batch}"), &mut || {
            std::hint::black_box(net.forward(&x)?.detach());
            Ok(())
        })?;
    }
    Ok(())
}

fn time(name: &str, work: &str, threads: usize, seconds: f64, run: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    for _ in 0..3 {
        run()?;
    }
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || begun.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!(r#"{{"name":"{name}: {work}","threads":{threads},"ms":{:.4}}}"#, times[times.len() / 2]);
    Ok(())
}
