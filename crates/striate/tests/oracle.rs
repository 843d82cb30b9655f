//! Every layer against its definition: plain loops in f64 over random shapes, forward and both backwards.

use ndarray::{Array1, Array2, Array4};
use proptest::prelude::*;
use striate::kernels::im2col::{col2im, im2col};
use striate::layers::{Affine, Convolution, Pooling, PoolingKind, PoolingOptions};
use striate::random::{Purpose, Random};
use striate::shape::{Axis, Padding, Rounding, Span, Window};

type Dim = (usize, usize, usize, usize);

/// Distinct numbers around 0, so that maxima have no ties.
fn numbers(stream: u64, dim: Dim) -> Array4<f32> {
    let random = Random::new(11, Purpose::Test, stream);
    let mut i = 0;
    Array4::from_shape_simple_fn(dim, || {
        i += 1;
        random.normal(i)
    })
}

/// Within 1e-4, relative to max(1, max |reference|).
fn close(what: &str, found: &Array4<f32>, expected: &Array4<f64>) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.dim(), expected.dim(), "{}", what);
    let scale = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (index, &reference) in expected.indexed_iter() {
        let value = f64::from(found[index]);
        prop_assert!((value - reference).abs() <= 1e-4 * scale, "{what} at {index:?}: {value}, expected {reference}");
    }
    Ok(())
}

/// Calls `visit(output place, weight place in the window, input place)` for every pair that meets, padding left out.
fn meetings(
    window: Window,
    input: (usize, usize),
    output: (usize, usize),
    mut visit: impl FnMut((usize, usize), (usize, usize), (usize, usize)),
) {
    for oy in 0..output.0 {
        for ox in 0..output.1 {
            for i in 0..window.kernel.0 {
                for j in 0..window.kernel.1 {
                    let y = (oy * window.stride.0 + i * window.dilation.0) as isize - window.padding.top as isize;
                    let x = (ox * window.stride.1 + j * window.dilation.1) as isize - window.padding.left as isize;
                    if y >= 0 && x >= 0 && (y as usize) < input.0 && (x as usize) < input.1 {
                        visit((oy, ox), (i, j), (y as usize, x as usize));
                    }
                }
            }
        }
    }
}

fn check_convolution(x: Dim, filters: usize, groups: usize, window: Window) -> Result<(), TestCaseError> {
    let Ok((oh, ow)) = window.output((x.2, x.3)) else { return Ok(()) };
    let (n, c, h, w) = x;
    let per_group = (c / groups, filters / groups);
    let input = numbers(1, x);
    let weights = numbers(2, (filters, per_group.0, window.kernel.0, window.kernel.1));
    let bias = Array1::from_iter(numbers(3, (1, 1, 1, filters)));
    let gradient = numbers(4, (n, filters, oh, ow));
    let mut y = Array4::<f64>::zeros((n, filters, oh, ow));
    let (mut dx, mut dw) = (Array4::<f64>::zeros(x), Array4::<f64>::zeros(weights.raw_dim()));
    for sample in 0..n {
        for f in 0..filters {
            y.slice_mut(ndarray::s![sample, f, .., ..]).fill(f64::from(bias[f]));
            for within in 0..per_group.0 {
                let channel = f / per_group.1 * per_group.0 + within;
                meetings(window, (h, w), (oh, ow), |(oy, ox), (i, j), (iy, ix)| {
                    let weight = f64::from(weights[[f, within, i, j]]);
                    let value = f64::from(input[[sample, channel, iy, ix]]);
                    let g = f64::from(gradient[[sample, f, oy, ox]]);
                    y[[sample, f, oy, ox]] += weight * value;
                    dx[[sample, channel, iy, ix]] += weight * g;
                    dw[[f, within, i, j]] += value * g;
                });
            }
        }
    }
    let mut layer = Convolution::with_window(weights, bias, window).unwrap();
    close("y", &layer.forward(&input).unwrap(), &y)?;
    close("dx", &layer.backward(&gradient).unwrap(), &dx)?;
    close("dw", layer.dw.as_ref().unwrap(), &dw)?;
    let db = gradient.mapv(f64::from).sum_axis(ndarray::Axis(0)).sum_axis(ndarray::Axis(1)).sum_axis(ndarray::Axis(1));
    let reshape = |v: Array1<f64>| v.into_shape_with_order((1, 1, 1, filters)).unwrap();
    let found = layer.db.clone().unwrap().into_shape_with_order((1, 1, 1, filters)).unwrap();
    close("db", &found, &reshape(db))?;

    if groups > 1 {
        return Ok(());
    }
    // The same through the public im2col, as the book computes it.
    let col = im2col(input.view(), window).unwrap();
    let flat = layer.w.clone().into_shape_with_order((filters, col.ncols())).unwrap();
    let product = (col.dot(&flat.t()) + &layer.b).as_standard_layout().into_owned();
    let product = product.into_shape_with_order((n, oh, ow, filters)).unwrap();
    close("im2col", &product.permuted_axes([0, 3, 1, 2]).as_standard_layout().into_owned(), &y)?;
    let rows = gradient.permuted_axes([0, 2, 3, 1]).as_standard_layout().into_owned();
    let rows = rows.into_shape_with_order((n * oh * ow, filters)).unwrap();
    close("col2im", &col2im(rows.dot(&flat).view(), x, window).unwrap(), &dx)
}

fn check_pooling(x: Dim, options: PoolingOptions) -> Result<(), TestCaseError> {
    let window = options.window;
    let Ok((oh, ow)) = window.output((x.2, x.3)) else { return Ok(()) };
    let (n, c, h, w) = x;
    let (input, gradient) = (numbers(5, x), numbers(6, (n, c, oh, ow)));
    let (mut y, mut dx) = (Array4::<f64>::zeros((n, c, oh, ow)), Array4::<f64>::zeros(x));
    for sample in 0..n {
        for channel in 0..c {
            let mut under = vec![Vec::new(); oh * ow];
            meetings(window, (h, w), (oh, ow), |(oy, ox), _, at| under[oy * ow + ox].push(at));
            for (i, places) in under.iter().enumerate() {
                let value = |&(y, x): &(usize, usize)| f64::from(input[[sample, channel, y, x]]);
                let g = f64::from(gradient[[sample, channel, i / ow, i % ow]]);
                if options.pooling == PoolingKind::Max {
                    let best = *places.iter().max_by(|a, b| value(a).total_cmp(&value(b))).unwrap();
                    y[[sample, channel, i / ow, i % ow]] = value(&best);
                    dx[[sample, channel, best.0, best.1]] += g;
                } else {
                    // A padded place counts if asked to, but not one beyond the padding (ceil rounding).
                    let within = |out: usize, size: usize, span: Span| {
                        let end = size + span.padding.0 + span.padding.1;
                        (0..span.kernel).filter(|k| out * span.stride + k * span.dilation < end).count()
                    };
                    let padded =
                        within(i / ow, h, window.along(Axis::Height)) * within(i % ow, w, window.along(Axis::Width));
                    let count = if options.count_padding { padded } else { places.len() } as f64;
                    y[[sample, channel, i / ow, i % ow]] = places.iter().map(value).sum::<f64>() / count;
                    places.iter().for_each(|at| dx[[sample, channel, at.0, at.1]] += g / count);
                }
            }
        }
    }
    let mut layer = Pooling::new(options);
    close("y", &layer.forward(&input).unwrap(), &y)?;
    close("dx", &layer.backward(&gradient).unwrap(), &dx)
}

fn window(kernel: usize, stride: usize, padding: usize) -> impl Strategy<Value = Window> {
    let pair = |low: usize, high: usize| (low..=high, low..=high);
    let sides = (pair(0, padding), pair(0, padding), proptest::bool::weighted(0.7));
    let padding =
        sides.prop_map(
            |((top, left), (bottom, right), even)| {
                if even { Padding::symmetric(top, left) } else { Padding { top, left, bottom, right } }
            },
        );
    let dilation = prop_oneof![3 => Just((1, 1)), 1 => pair(1, 3)];
    (pair(1, kernel), pair(1, stride), padding, dilation).prop_map(|(kernel, stride, padding, dilation)| Window {
        kernel,
        stride,
        padding,
        dilation,
        rounding: Rounding::Floor,
    })
}

/// Whether every window of a pooling sees a pixel.
fn sees(window: Window, input: (usize, usize)) -> bool {
    let Ok(output) = window.output(input) else { return false };
    let mut seen = vec![false; output.0 * output.1];
    meetings(window, input, output, |(y, x), _, _| seen[y * output.1 + x] = true);
    seen.into_iter().all(|s| s)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolution(
        n in 1usize..4, c in 1usize..20, h in 1usize..21, w in 1usize..21, filters in 1usize..38, window in window(6, 7, 5)
    ) {
        check_convolution((n, c, h, w), filters, 1, window)?;
    }

    #[test]
    fn grouped_convolution(
        n in 1usize..4, groups in 1usize..9, c in 1usize..5, h in 1usize..21, w in 1usize..21, filters in 1usize..9,
        window in window(5, 4, 4)
    ) {
        check_convolution((n, groups * c, h, w), groups * filters, groups, window)?;
    }

    #[test]
    fn depthwise_convolution(
        n in 1usize..10, c in 2usize..9, h in 1usize..30, w in 1usize..40, multiplier in 1usize..4, window in window(5, 4, 4)
    ) {
        check_convolution((n, c, h, w), c * multiplier, c, window)?;
    }

    #[test]
    fn pooling(
        n in 1usize..4, c in 1usize..9, h in 1usize..21, w in 1usize..21, window in window(5, 6, 2),
        ceil: bool, max: bool, count_padding: bool
    ) {
        let window = window.rounding(if ceil { Rounding::Ceil } else { Rounding::Floor });
        prop_assume!(sees(window, (h, w)));
        let pooling = if max { PoolingKind::Max } else { PoolingKind::Average };
        check_pooling((n, c, h, w), PoolingOptions { pooling, window, count_padding })?;
    }

    #[test]
    fn affine(n in 1usize..70, inputs in 1usize..300, outputs in 1usize..70) {
        let (x, w) = (numbers(7, (1, 1, n, inputs)), numbers(8, (1, 1, inputs, outputs)));
        let (b, g) = (numbers(9, (1, 1, 1, outputs)), numbers(10, (1, 1, n, outputs)));
        let flat = |a: &Array4<f32>| -> Array2<f32> { a.clone().into_shape_with_order((a.dim().2, a.dim().3)).unwrap() };
        let lift = |a: Array2<f64>| a.insert_axis(ndarray::Axis(0)).insert_axis(ndarray::Axis(0));
        let lift32 = |a: Array2<f32>| a.insert_axis(ndarray::Axis(0)).insert_axis(ndarray::Axis(0));
        let double = |a: &Array2<f32>| a.mapv(f64::from);
        let (x, w, b, g) = (flat(&x), flat(&w), flat(&b).row(0).to_owned(), flat(&g));
        let mut layer = Affine::new(w.clone(), b.clone()).unwrap();
        let y = double(&x).dot(&double(&w)) + &b.mapv(f64::from);
        close("y", &lift32(layer.forward(&x).unwrap()), &lift(y))?;
        let dx = layer.backward(&g).unwrap().into_dimensionality().unwrap();
        close("dx", &lift32(dx), &lift(double(&g).dot(&double(&w).t())))?;
        close("dw", &lift32(layer.dw.clone().unwrap()), &lift(double(&x).t().dot(&double(&g))))?;
        let db = layer.db.clone().unwrap().insert_axis(ndarray::Axis(0));
        close("db", &lift32(db), &lift(double(&g).sum_axis(ndarray::Axis(0)).insert_axis(ndarray::Axis(0))))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 25, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn many_channels_of_every_group(
        n in 1usize..6, c in 16usize..40, h in 8usize..20, w in 8usize..40, filters in 16usize..40, groups in 1usize..3,
        side in proptest::sample::select(vec![3usize, 5]), sides in (0usize..3, 0usize..3, 0usize..3, 0usize..3)
    ) {
        let padding = Padding { top: sides.0, left: sides.1, bottom: sides.2, right: sides.3 };
        check_convolution((n, groups * c, h, w), groups * filters, groups, Window { padding, ..Window::square(side, 1, 0) })?;
    }

    #[test]
    fn any_filter_at_stride_one(
        n in 1usize..4, c in 1usize..12, h in 6usize..40, w in 6usize..70, filters in 1usize..30,
        kernel in (1usize..6, 1usize..6), dilation in (1usize..3, 1usize..3),
        sides in (0usize..4, 0usize..4, 0usize..4, 0usize..4)
    ) {
        let padding = Padding { top: sides.0, left: sides.1, bottom: sides.2, right: sides.3 };
        let reaches = |size: usize, pad: usize, k: usize, d: usize| size + pad > (k - 1) * d;
        prop_assume!(reaches(h, sides.0 + sides.2, kernel.0, dilation.0) && reaches(w, sides.1 + sides.3, kernel.1, dilation.1));
        check_convolution((n, c, h, w), filters, 1, Window { kernel, padding, dilation, ..Window::square(1, 1, 0) })?;
    }
}

#[test]
fn edges_of_the_shapes() {
    let window = |kernel, stride, (rows, columns): (usize, usize)| Window {
        kernel,
        stride,
        padding: Padding::symmetric(rows, columns),
        dilation: (1, 1),
        rounding: Rounding::Floor,
    };
    let cases = [
        ((1, 1, 1, 1), 1, window((1, 1), (1, 1), (0, 0)), "one pixel, one weight"),
        ((2, 1, 1, 1), 3, window((3, 3), (1, 1), (1, 1)), "one pixel under a larger filter"),
        ((1, 2, 2, 2), 2, window((2, 2), (5, 5), (4, 4)), "windows that see padding only"),
        ((1, 3, 9, 9), 17, window((1, 1), (4, 4), (0, 0)), "stride larger than the kernel"),
        ((9, 1, 5, 70), 1, window((5, 1), (1, 1), (0, 0)), "a row of output"),
        ((3, 2, 6, 5), 4, window((1, 2), (1, 1), (4, 4)), "padding wider than the filter on both sides"),
        ((33, 2, 6, 6), 13, window((3, 3), (1, 1), (1, 1)), "more images than pieces"),
        ((1, 67, 8, 8), 64, window((3, 3), (1, 1), (1, 1)), "depth beyond a block"),
        ((2, 3, 40, 40), 12, window((11, 11), (4, 4), (2, 2)), "AlexNet's first layer in small"),
        ((9, 256, 7, 7), 17, window((3, 3), (1, 1), (1, 1)), "Winograd's sums over many channels"),
        ((1, 300, 16, 17), 16, window((3, 3), (1, 1), (2, 2)), "Winograd's depth beyond a block"),
        ((2, 300, 13, 11), 16, window((5, 5), (1, 1), (2, 2)), "the same for 5x5 filters"),
        ((5, 16, 6, 7), 18, window((5, 5), (1, 1), (4, 4)), "5x5 filters with all the padding they can read"),
        ((4, 16, 20, 4), 24, window((5, 5), (1, 1), (2, 2)), "three images of five tiles in one panel"),
        ((3, 24, 12, 8), 16, window((5, 5), (1, 1), (2, 2)), "two images of six tiles in a narrow panel"),
        ((4, 16, 20, 4), 24, window((3, 3), (1, 1), (1, 1)), "the same for 3x3 filters"),
        ((2, 40, 9, 9), 20, window((1, 1), (2, 2), (0, 0)), "a projection that skips every second pixel"),
    ];
    for (x, filters, window, name) in cases {
        check_convolution(x, filters, 1, window).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn ties_go_to_the_first_in_row_order_and_nan_passes() {
    let mut pooling = Pooling::max(Window::square(2, 2, 0));
    let x = ndarray::array![[[[1., 1.], [1., 1.]]]];
    pooling.forward(&x).unwrap();
    assert_eq!(pooling.backward(&ndarray::array![[[[5.]]]]).unwrap(), ndarray::array![[[[5., 0.], [0., 0.]]]]);
    let x = ndarray::array![[[[0., 1.], [1., 0.]]]];
    pooling.forward(&x).unwrap();
    assert_eq!(pooling.backward(&ndarray::array![[[[5.]]]]).unwrap(), ndarray::array![[[[0., 5.], [0., 0.]]]]);
    for place in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut x = Array4::zeros((1, 1, 2, 2));
        x[[0, 0, place.0, place.1]] = f32::NAN;
        assert!(pooling.forward(&x).unwrap()[[0, 0, 0, 0]].is_nan());
        let mut any = Pooling::max(Window::square(2, 1, 0));
        assert!(any.forward(&x).unwrap()[[0, 0, 0, 0]].is_nan());
    }
}

/// The instruction set is chosen once a process, so each gets a process of its own that runs all the tests above.
#[test]
fn every_instruction_set_of_this_machine() {
    for isa in striate::kernels::isa::Isa::available() {
        let run = std::process::Command::new(std::env::current_exe().unwrap())
            .env("STRIATE_ISA", isa.name())
            .args(["--skip", "every_instruction_set_of_this_machine"])
            .output()
            .unwrap();
        assert!(run.status.success(), "{isa}: {}", String::from_utf8_lossy(&run.stdout));
        assert!(String::from_utf8_lossy(&run.stdout).contains("9 passed"), "{isa} ran every test");
    }
}
