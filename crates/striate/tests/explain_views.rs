//! The views that go over many images, against plain searches.

use ndarray::{Array2, Array3, Array4, ArrayView1, Axis, s};
use striate::data::{Dataset, Normalization, one_class_names};
use striate::explain::similar::Readout;
use striate::explain::{
    Aim, ClassMeans, ExplainError, Images, MaximizeOptions, activations, features, maximize, nearest, shift,
    top_patches,
};
use striate::layers::{
    AdaptivePoolingOptions, AffineOptions, BatchNormOptions, ConvolutionOptions, Init, PoolingOptions, ReluOptions,
};
use striate::network::{Description, Network};
use striate::random::{Purpose, Random};
use striate::shape::{Shape, Window};
use striate::train::evaluate;

const CLASSES: usize = 3;

fn scale() -> Normalization {
    Normalization::identity()
}

/// Two convolutions with pooling between, one of them padded.
fn network() -> Network {
    let convolution = |filters, padding| ConvolutionOptions::new(filters, Window::square(3, 1, padding), Init::He);
    let description = Description::new("two", Shape::new(2, 10, 12))
        .with("Conv1", convolution(4, 1))
        .with("Norm1", BatchNormOptions::default())
        .with("Relu1", ReluOptions {})
        .with("Pool1", PoolingOptions::max(Window::square(2, 2, 0)))
        .with("Conv2", convolution(5, 0))
        .with("Relu2", ReluOptions {})
        .with("Affine1", AffineOptions::new(8, Init::He))
        .with("Relu3", ReluOptions {})
        .with("Affine2", AffineOptions::new(CLASSES, Init::He));
    Network::new(description, 3).unwrap()
}

fn noise(shape: Shape, n: usize, stream: u64) -> Array4<f32> {
    let random = Random::new(4, Purpose::Test, stream);
    Array4::from_shape_fn((n, shape.channels, shape.height, shape.width), |(n, c, y, x)| {
        random.normal((((n * shape.channels + c) * shape.height + y) * shape.width + x) as u64)
    })
}

fn dataset(n: usize) -> Dataset {
    let x = noise(network().input(), n, 0);
    Dataset::from_arrays(x, (0..n).map(|i| i % CLASSES).collect(), one_class_names(CLASSES)).unwrap()
}

/// The output of a layer for one image.
fn output(network: &Network, layer: &str, x: &Array3<f32>) -> Vec<f32> {
    let x = x.clone().insert_axis(Axis(0));
    let data = Dataset::from_arrays(x, vec![0], one_class_names(network.classes())).unwrap();
    features(network, layer, &Images::new(&data, &scale())).unwrap().into_raw_vec_and_offset().0
}

fn image(data: &Dataset, index: usize) -> Array3<f32> {
    data.batch(index..index + 1, &scale()).index_axis_move(Axis(0), 0)
}

#[test]
fn the_activation_rises_and_is_that_of_the_picture() {
    let network = network();
    let range = [(-2.0, 2.0), (-1.0, 3.0)];
    for (layer, units, area) in [("Conv1", 4, 120), ("Norm1", 4, 120), ("Conv2", 5, 12), ("Affine2", 3, 1)] {
        let asked: Vec<usize> = (0..units).collect();
        let found = maximize(&network, layer, &asked, &range, &MaximizeOptions::default()).unwrap();
        assert_eq!(found.len(), units);
        for one in found {
            assert!(one.after > one.before, "{layer} {}: {} to {}", one.unit, one.before, one.after);
            let values = &output(&network, layer, &one.image)[one.unit * area..][..area];
            let mean = values.iter().sum::<f32>() / area as f32;
            assert!((mean - one.after).abs() < 1e-4 * mean.abs().max(1.0), "{layer} {}: {mean}", one.unit);
            for (plane, (low, high)) in one.image.axis_iter(Axis(0)).zip(range) {
                assert!(plane.iter().all(|v| (low..=high).contains(v)));
            }
        }
    }
}

#[test]
fn the_place_in_the_middle_sees_only_its_patch() {
    let (network, range) = (network(), [(-2.0, 2.0); 2]);
    let options =
        MaximizeOptions { aim: Aim::Middle, jitter: 0, smooth: 0.0, decay: 0.0, ..MaximizeOptions::default() };
    let found = maximize(&network, "Conv1", &[1, 2], &range, &options).unwrap();
    let faint = maximize(&network, "Conv1", &[1, 2], &range, &MaximizeOptions { steps: 0, ..options }).unwrap();
    for (one, faint) in found.iter().zip(&faint) {
        let value = output(&network, "Conv1", &one.image)[(one.unit * 10 + 5) * 12 + 6];
        assert!(one.after > one.before && (value - one.after).abs() < 1e-4 * value.abs().max(1.0), "{value}");
        // Rows 4 to 6 and columns 5 to 7; the noise around them is as it was.
        for ((c, y, x), &v) in one.image.indexed_iter() {
            let inside = (4..7).contains(&y) && (5..8).contains(&x);
            assert_eq!(inside, v != faint.image[[c, y, x]], "{c} {y} {x}");
        }
    }
}

#[test]
fn top_patches_are_those_of_a_plain_search() {
    let (network, data) = (network(), dataset(70));
    let scale = scale();
    let images = Images::new(&data, &scale).at_most(60);
    let asked: [(&str, &[usize]); 3] = [("Relu2", &[0, 4]), ("Conv1", &[3]), ("Affine2", &[1])];
    let found = top_patches(&network, &asked, &images, 5).unwrap();
    for ((layer, units), found) in asked.iter().zip(&found) {
        assert_eq!(found.layer, *layer);
        let (height, width) = match *layer {
            "Conv1" => (10, 12),
            "Relu2" => (3, 4),
            _ => (1, 1),
        };
        for (&unit, found) in units.iter().zip(&found.units) {
            let mut all: Vec<(f32, usize, (usize, usize))> = (0..60)
                .map(|k| {
                    let index = images.index(k);
                    let map = &output(&network, layer, &image(&data, index))[unit * height * width..][..height * width];
                    let best = (0..map.len()).fold(0, |best, i| if map[i] > map[best] { i } else { best });
                    (map[best], index, (best / width, best % width))
                })
                .collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            assert_eq!((found.unit, found.patches.len()), (unit, 5));
            for (patch, &(activation, index, at)) in found.patches.iter().zip(&all) {
                assert_eq!((patch.image, patch.at), (index, at), "{layer} {unit}");
                assert!((patch.activation - activation).abs() < 1e-5);
                // The field by hand, from the shapes.
                let (rows, columns) = match *layer {
                    "Conv1" => (at.0.saturating_sub(1)..(at.0 + 2).min(10), at.1.saturating_sub(1)..(at.1 + 2).min(12)),
                    // Three pooled rows are six, and the padded convolution sees one more on either side.
                    "Relu2" => (
                        (2 * at.0).saturating_sub(1)..(2 * at.0 + 7).min(10),
                        (2 * at.1).saturating_sub(1)..(2 * at.1 + 7).min(12),
                    ),
                    _ => (0..10, 0..12),
                };
                assert_eq!((patch.rows.clone(), patch.columns.clone()), (rows.clone(), columns.clone()));
                // What lies outside does not matter, what lies inside does.
                let inside = image(&data, index);
                let mut alone = Array3::zeros(inside.dim());
                let place = s![.., rows.clone(), columns.clone()];
                alone.slice_mut(place).assign(&inside.slice(place));
                let there = |x: &Array3<f32>| output(&network, layer, x)[(unit * height + at.0) * width + at.1];
                assert!((there(&alone) - activation).abs() < 1e-5);
                let mut corner = inside.clone();
                corner[[0, rows.start, columns.start]] += 40.0;
                assert!((there(&corner) - activation).abs() > 1e-5);
            }
        }
    }
    let error = top_patches(&network, &[("Conv1", &[4])], &images, 5).unwrap_err();
    assert!(error.to_string().contains("0 to 3 in layer Conv1"), "{error}");
    let names: Vec<_> = activations(&network).unwrap().into_iter().map(|a| (a.layer, a.linear, a.units)).collect();
    let expected = [("Relu1", "Norm1", 4), ("Relu2", "Conv2", 5), ("Relu3", "Affine1", 8), ("Affine2", "Affine2", 3)];
    assert_eq!(names, expected.map(|(layer, linear, units)| (layer.into(), linear.into(), units)));
}

#[test]
fn the_nearest_are_those_of_a_plain_search() {
    let (network, data) = (network(), dataset(40));
    let scale = scale();
    let rows = features(&network, "Relu3", &Images::new(&data, &scale)).unwrap();
    assert_eq!(rows.dim(), (40, 8));
    for (i, row) in rows.rows().into_iter().enumerate() {
        let one = output(&network, "Relu3", &image(&data, i));
        assert!(row.iter().zip(&one).all(|(a, b)| (a - b).abs() < 1e-5), "{i}");
    }
    let cosine = |a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>| {
        let dot = |a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>| a.mapv(f64::from).dot(&b.mapv(f64::from));
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    for i in 0..40 {
        let found = nearest(rows.view(), rows.row(i), 4);
        let mut all: Vec<(usize, f64)> = (0..40).map(|j| (j, cosine(rows.row(j), rows.row(i)))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        // An image of the set is its own nearest.
        assert!(found[0].0 == i && (found[0].1 - 1.0).abs() < 1e-6, "{i}: {found:?}");
        for (&(j, similarity), &(expected, value)) in found.iter().zip(&all) {
            assert_eq!(j, expected, "{i}");
            assert!((f64::from(similarity) - value).abs() < 1e-6);
        }
    }
}

#[test]
fn class_means_and_the_layer_where_a_class_is_lost() {
    let (network, data) = (network(), dataset(30));
    let scale = scale();
    let images = Images::new(&data, &scale);
    let means = ClassMeans::new(&network, &images).unwrap();
    let x = image(&data, 7);
    let readouts = means.read(&network, x.view(), 1).unwrap();
    for readout in &readouts {
        let rows = features(&network, &readout.layer, &images).unwrap();
        let own = output(&network, &readout.layer, &x);
        let distance = |class: usize| {
            let members: Vec<usize> = (0..30).filter(|i| i % CLASSES == class).collect();
            let mean = |j: usize| members.iter().map(|&i| f64::from(rows[[i, j]])).sum::<f64>() / members.len() as f64;
            own.iter().enumerate().map(|(j, &v)| (f64::from(v) - mean(j)).powi(2)).sum::<f64>().sqrt()
        };
        let distances = [0, 1, 2].map(distance);
        let best = (0..3).fold(0, |best, c| if distances[c] < distances[best] { c } else { best });
        assert_eq!(readout.nearest, best, "{}", readout.layer);
        let other = distances[0].min(distances[2]);
        assert!((f64::from(readout.margin) - (other - distances[1]) / other).abs() < 1e-4, "{}", readout.layer);
    }
    let names: Vec<&str> = readouts.iter().map(|r| r.layer.as_str()).collect();
    assert_eq!(names[0], "input");
    assert_eq!(names.last(), Some(&"Affine2"));

    let history = |nearest: &[usize]| -> Vec<Readout> {
        let layer = |(i, &nearest)| Readout { layer: format!("L{i}"), nearest, margin: 0.0 };
        nearest.iter().enumerate().map(layer).collect()
    };
    let lost = |nearest: &[usize]| Readout::lost_at(&history(nearest), 4).map(|readout| readout.layer.clone());
    assert_eq!(lost(&[4, 4, 9, 9]), Some("L2".into()));
    assert_eq!(lost(&[4, 9, 4, 9]), Some("L3".into()), "the last time counts");
    assert_eq!(lost(&[9, 9, 4, 4]), None, "found again");
    assert_eq!(lost(&[9, 9]), None, "never there");
    assert_eq!(lost(&[]), None);
}

/// A dark spot of two pixels a class, far from the edges of a plain image.
fn spots() -> Dataset {
    let x = Array4::from_shape_fn((12, 1, 16, 16), |(n, _, y, x)| {
        let column = 6 + n / CLASSES % 3;
        let (down, across) = [(0, 1), (1, 0), (1, 1)][n % CLASSES];
        if (y, x) == (7, column) || (y, x) == (7 + down, column + across) { 1.0 } else { 0.1 }
    });
    Dataset::from_arrays(x, (0..12).map(|i| i % CLASSES).collect(), one_class_names(CLASSES)).unwrap()
}

#[test]
fn a_mean_over_the_map_does_not_see_a_move_and_a_dense_network_does() {
    let convolution = ConvolutionOptions::new(6, Window::square(3, 1, 0), Init::He);
    let invariant = Description::new("mean", Shape::new(1, 16, 16))
        .with("Conv1", convolution)
        .with("Relu1", ReluOptions {})
        .with("Mean", AdaptivePoolingOptions::global())
        .with("Affine1", AffineOptions::new(CLASSES, Init::Normal { deviation: 20.0 }));
    let dense = Description::new("dense", Shape::new(1, 16, 16))
        .with("Affine1", AffineOptions::new(CLASSES, Init::Normal { deviation: 1.0 }));
    let (data, scale) = (spots(), scale());
    let images = Images::new(&data, &scale);
    for (description, moves) in [(invariant, false), (dense, true)] {
        let network = Network::new(description, 2).unwrap();
        let found = shift(&network, &images, 3).unwrap();
        assert_eq!(found.iter().map(|row| row.pixels).collect::<Vec<_>>(), [0, 1, 2, 3]);
        // No move changes nothing, and the accuracy is that of an evaluation.
        assert!((found[0].unchanged - 1.0).abs() < 1e-12 && found[0].change == 0.0);
        let accuracy = evaluate(&network, &data, &scale, 12).unwrap().accuracy;
        assert!((found[0].accuracy - accuracy).abs() < 1e-12);
        for row in &found[1..] {
            if moves {
                assert!(row.change > 0.05, "{row:?}");
            } else {
                assert!((row.unchanged - 1.0).abs() < 1e-12 && row.change < 1e-4, "{row:?}");
            }
        }
        assert!(shift(&network, &images, 16).unwrap_err().to_string().contains("less than 16"));
    }
}

#[test]
fn data_that_does_not_fit_is_said() {
    let network = network();
    let (data, scale) = (spots(), scale());
    let images = Images::new(&data, &scale);
    assert!(matches!(features(&network, "Conv1", &images), Err(ExplainError::Data { .. })));
    let data = dataset(5);
    let images = Images::new(&data, &scale);
    let error = features(&network, "Conv9", &images).unwrap_err();
    assert!(error.to_string().contains("Conv9") && error.to_string().contains("Relu3"), "{error}");
    assert!(features(&network, "Conv1", &images.at_most(0)).unwrap_err().to_string().contains("1 or more"));
    let two = Dataset::from_arrays(noise(network.input(), 2, 0), vec![0, 1], one_class_names(2)).unwrap();
    let error = shift(&network, &Images::new(&two, &scale), 1).unwrap_err();
    assert!(error.to_string().contains("2 classes") && error.to_string().contains('3'), "{error}");
    assert!(matches!(ClassMeans::new(&network, &Images::new(&two, &scale)), Err(ExplainError::Classes { .. })));
    // Progress is told to the end, batch by batch.
    let told = std::cell::RefCell::new(Vec::new());
    let progress = |done, all| told.borrow_mut().push((done, all));
    let data = dataset(120);
    let rows: Array2<f32> = features(&network, "input", &Images::new(&data, &scale).progress(&progress)).unwrap();
    assert_eq!(rows.dim(), (120, 240));
    assert_eq!(*told.borrow(), [(50, 120), (100, 120), (120, 120)]);
}
