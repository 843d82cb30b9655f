//! Every pass against its definition in f64, for every set of kernels and several numbers of threads.

use super::*;
use crate::kernels::isa::Isa;
use crate::kernels::isa::int8::available;
use crate::kernels::pooling;
use crate::random::{Purpose, Random};
use crate::shape::{Rounding, Shape, Window};
use proptest::prelude::*;

/// Bytes drawn one after the other.
struct Bytes(Random, u64);

impl Bytes {
    fn new(seed: u64) -> Self {
        Self(Random::new(seed, Purpose::Test, 0), 0)
    }

    fn next(&mut self) -> u8 {
        self.1 += 1;
        self.0.bits(self.1) as u8
    }

    fn unsigned(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next()).collect()
    }

    fn signed(&mut self, count: usize) -> Vec<i8> {
        (0..count).map(|_| (self.next() as i8).max(-127)).collect()
    }

    /// With what may be read after the end: never zeros, so that reading them would show.
    fn padded(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = self.unsigned(count);
        bytes.extend([0xa5; SLACK]);
        bytes
    }
}

fn window(kernel: (usize, usize), stride: (usize, usize), padding: Padding, dilation: (usize, usize)) -> Window {
    Window { kernel, stride, padding, dilation, rounding: Rounding::Floor }
}

/// The sums of a convolution by its definition, (N, OH, OW, FN), with the bias.
fn sums(g: &Geometry, x: &[u8], zero: u8, w: &[i8], bias: &[i32]) -> Vec<i64> {
    let batch = (x.len() - SLACK) / g.input.len();
    let mut sums = Vec::new();
    for n in 0..batch {
        for at in 0..g.output.area() {
            let (oy, ox) = (at / g.output.width, at % g.output.width);
            for f in 0..g.filters() {
                let mut sum = i64::from(bias[f]);
                for c in 0..g.group_channels() {
                    let channel = f / g.group_filters() * g.group_channels() + c;
                    for ky in 0..g.window.kernel.0 {
                        for kx in 0..g.window.kernel.1 {
                            let y = (oy * g.window.stride.0 + ky * g.window.dilation.0)
                                .checked_sub(g.window.padding.top)
                                .filter(|&y| y < g.input.height);
                            let x_at = (ox * g.window.stride.1 + kx * g.window.dilation.1)
                                .checked_sub(g.window.padding.left)
                                .filter(|&x| x < g.input.width);
                            let (Some(y), Some(x_at)) = (y, x_at) else { continue };
                            let place = ((n * g.input.height + y) * g.input.width + x_at) * g.input.channels + channel;
                            let weight =
                                w[((f * g.group_channels() + c) * g.window.kernel.0 + ky) * g.window.kernel.1 + kx];
                            sum += (i64::from(x[place]) - i64::from(zero)) * i64::from(weight);
                        }
                    }
                }
                sums.push(sum);
            }
        }
    }
    sums
}

/// The byte of a sum: one product in f32, one rounding.
fn byte(sum: i64, factor: f32, zero: u8) -> u8 {
    let product = (sum as f32) * factor;
    (f64::from(product).round_ties_even() + f64::from(zero)).clamp(0.0, 255.0) as u8
}

fn check_convolution(g: Geometry, batch: usize, seed: u64) {
    let mut bytes = Bytes::new(seed);
    let x = bytes.padded(batch * g.input.len());
    let w = bytes.signed(g.weights());
    let filters = g.filters();
    let bias: Vec<i32> = (0..filters).map(|_| (i32::from(bytes.next()) - 128) * 50).collect();
    let spread = 1.0 / (40.0 * (g.depth() as f32).sqrt() * 37.0);
    let factors: Vec<f32> = (0..filters).map(|_| spread * (1.0 + f32::from(bytes.next()) / 255.0)).collect();
    let (input_zero, zero) = (bytes.next(), bytes.next());
    let scaling = Scaling { bias: bias.clone(), factors: factors.clone(), zero };
    let expected_sums = sums(&g, &x, input_zero, &w, &bias);
    let expected: Vec<u8> =
        expected_sums.iter().enumerate().map(|(i, &sum)| byte(sum, factors[i % filters], zero)).collect();
    let numbers: Vec<f32> =
        expected_sums.iter().enumerate().map(|(i, &sum)| sum as f32 * factors[i % filters]).collect();
    let product = Product::new(g, &w, scaling.clone(), input_zero);
    let mut workspace = vec![0x5a; product.workspace(batch)];
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            for kernels in Isa::available().flat_map(available) {
                let mut y = vec![0; expected.len()];
                product.forward_with(kernels, &x, batch, Target::Bytes(&mut y), &mut workspace);
                assert_eq!(y, expected, "{} {g:?}", kernels.name);
                let mut y = vec![0.0; expected.len()];
                product.forward_with(kernels, &x, batch, Target::Numbers(&mut y), &mut workspace);
                assert_eq!(y, numbers, "{} {g:?}", kernels.name);
            }
            if Depthwise::takes(&g) {
                let depthwise = Depthwise::new(g, &w, scaling.clone(), input_zero);
                let mut workspace = vec![0x5a; depthwise.workspace(batch)];
                let mut y = vec![0; expected.len()];
                depthwise.forward(&x, &mut y, &mut workspace);
                assert_eq!(y, expected, "depthwise {g:?}");
            }
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn convolutions_of_any_shape_are_their_definition(
        batch in 1usize..=3,
        channels in prop_oneof![Just(1usize), Just(3), 1usize..=40],
        filters in prop_oneof![Just(1usize), Just(16), 1usize..=50],
        size in (1usize..=12, 1usize..=12),
        kernel in (1usize..=5, 1usize..=5),
        stride in (1usize..=6, 1usize..=6),
        padding in prop_oneof![Just(Padding::NONE), (0usize..=2, 0usize..=2, 0usize..=2, 0usize..=2)
            .prop_map(|(top, left, bottom, right)| Padding { top, left, bottom, right })],
        dilation in prop_oneof![Just((1usize, 1usize)), (1usize..=2, 1usize..=2)],
        groups in 0usize..=4,
        seed in any::<u64>(),
    ) {
        let window = window(kernel, stride, padding, dilation);
        // No group, two, or one for each channel.
        let (channels, filters, groups) = match groups {
            0 | 1 => (channels, filters, 1),
            2 => (channels * 2, filters * 2, 2),
            3 => (channels, channels, channels),
            _ => (channels, channels * 2, channels),
        };
        if let Ok(g) = Geometry::new(Shape::new(channels, size.0, size.1), filters, groups, window) {
            check_convolution(g, batch, seed);
        }
    }

    #[test]
    fn pooling_is_its_definition(
        batch in 1usize..=3, channels in 1usize..=70, size in (1usize..=9, 1usize..=9), kernel in (1usize..=4, 1usize..=4),
        stride in (1usize..=5, 1usize..=5), padding in 0usize..=1, seed in any::<u64>(),
    ) {
        let shape = Shape::new(channels, size.0, size.1);
        let window = window(kernel, stride, Padding::all(padding), (1, 1));
        if let Ok(g) = pooling::Geometry::new(shape, window) {
            let mut bytes = Bytes::new(seed);
            let x = bytes.unsigned(batch * shape.len());
            let (input_zero, zero) = (bytes.next(), bytes.next());
            let scales = (0.7, 1.0);
            let average = Average { regions: Regions::Windows(g, false), scales, zeros: (input_zero, zero) };
            let (mut largest, mut means) = (Vec::new(), Vec::new());
            for (n, at) in (0..batch).flat_map(|n| (0..g.output.area()).map(move |at| (n, at))) {
                let (rows, columns) = g.under(at / g.output.width, at % g.output.width);
                for c in 0..channels {
                    let under: Vec<u8> = rows.clone().flat_map(|y| columns.clone().map(move |x| (y, x)))
                        .map(|(y, x_at)| x[((n * size.0 + y) * size.1 + x_at) * channels + c]).collect();
                    largest.push(under.iter().copied().max().unwrap());
                    let sum: i64 = under.iter().map(|&x| i64::from(x) - i64::from(input_zero)).sum();
                    means.push(byte(sum, 0.7 / under.len() as f32, zero));
                }
            }
            let mut y = vec![0; largest.len()];
            max_pool(&g, &x, &mut y);
            prop_assert_eq!(&y, &largest);
            average.forward(&x, &mut y);
            prop_assert_eq!(&y, &means);
        }
    }

    #[test]
    fn orders_sums_and_tables(
        batch in 1usize..=3, channels in 1usize..=9, height in 1usize..=50, width in 1usize..=50, seed in any::<u64>(),
    ) {
        let shape = Shape::new(channels, height, width);
        let mut bytes = Bytes::new(seed);
        let x = bytes.unsigned(batch * shape.len());
        let zero = bytes.next();
        let mut numbers = vec![0.0; x.len()];
        dequantize(shape, &x, (0.25, zero), &mut numbers);
        let mut moved = vec![0; x.len()];
        move_channels(shape, &x, &mut moved);
        for (i, (&byte, &number)) in moved.iter().zip(&numbers).enumerate() {
            let (n, c, at) = (i / shape.len(), i / shape.area() % channels, i % shape.area());
            prop_assert_eq!(byte, x[n * shape.len() + at * channels + c]);
            prop_assert_eq!(number, 0.25 * (f32::from(byte) - f32::from(zero)));
        }
        let mut back = vec![0; x.len()];
        quantize(shape, &numbers, (0.25, zero), &mut back);
        prop_assert_eq!(&back, &x);

        let other = bytes.unsigned(x.len());
        let mut sum = vec![0; x.len()];
        add((&x, (0.5, zero)), (&other, (0.3, 7)), 20, &mut sum);
        for ((&a, &b), &sum) in x.iter().zip(&other).zip(&sum) {
            let exact = (f32::from(a) - f32::from(zero)) * 0.5 + (f32::from(b) - 7.0) * 0.3;
            prop_assert_eq!(f64::from(sum), (f64::from(exact).round_ties_even() + 20.0).clamp(0.0, 255.0));
        }

        let table: [u8; 256] = std::array::from_fn(|i| (i as u8).wrapping_mul(7).wrapping_add(3));
        let mut y = vec![0; x.len()];
        lookup(&table, &x, &mut y);
        prop_assert!(y.iter().zip(&x).all(|(&y, &x)| y == table[usize::from(x)]));
        let tables: Vec<[u8; 256]> = (0..channels).map(|c| table.map(|byte| byte ^ c as u8)).collect();
        lookup_channels(&tables, &x, &mut y);
        prop_assert!(y.iter().zip(&x).enumerate().all(|(i, (&y, &x))| y == tables[i % channels][usize::from(x)]));
        let mut wide = vec![0; batch * shape.area() * (channels + 4)];
        place(&table, &x, channels, &mut wide, channels + 4, 3);
        for (wide, x) in wide.chunks_exact(channels + 4).zip(x.chunks_exact(channels)) {
            prop_assert!(wide[..3] == [0; 3] && wide[channels + 3] == 0);
            prop_assert!(wide[3..].iter().zip(x).all(|(&y, &x)| y == table[usize::from(x)]));
        }
    }
}

#[test]
fn large_layers_are_cut_and_give_the_same() {
    // Enough work for several tasks: by rows, by bands of padded rows, and by columns for a single row.
    let all = Padding::all(1);
    for (shape, filters, window, batch) in [
        (Shape::new(32, 24, 24), 48, window((3, 3), (1, 1), Padding::NONE, (1, 1)), 2),
        (Shape::new(32, 24, 24), 48, window((3, 3), (1, 1), all, (1, 1)), 2),
        (Shape::new(16, 24, 24), 300, window((24, 24), (1, 1), Padding::NONE, (1, 1)), 1),
        (Shape::new(16, 24, 24), 300, window((24, 24), (1, 1), Padding::NONE, (1, 1)), 5),
    ] {
        check_convolution(Geometry::new(shape, filters, 1, window).unwrap(), batch, 1);
    }
    check_convolution(
        Geometry::new(Shape::new(96, 40, 40), 96, 96, window((3, 3), (2, 2), all, (1, 1))).unwrap(),
        2,
        2,
    );
}

#[test]
fn numbers_round_to_the_nearest_even_byte_and_stop_at_the_ends() {
    for zero in [0, 1, 128, 255] {
        for step in -70_000..70_000 {
            let steps = step as f32 / 128.0;
            let expected = (f64::from(steps).round_ties_even() + f64::from(zero)).clamp(0.0, 255.0);
            assert_eq!(f64::from(to_byte(steps, zero)), expected, "{steps} {zero}");
        }
        assert_eq!([to_byte(f32::MIN, zero), to_byte(f32::MAX, zero)], [0, 255]);
    }
    assert_eq!([0.5, 1.5, 2.5, -0.5].map(|steps| to_byte(steps, 10)), [10, 12, 12, 10]);
}
