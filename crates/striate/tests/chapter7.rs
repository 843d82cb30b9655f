//! The chapter's worked numbers, as docs/chapter7.md names them.

use ndarray::{Array1, Array4, array};
use striate::kernels::im2col::im2col;
use striate::layers::{Affine, Convolution, Pooling, Relu};
use striate::models::simple_convnet::SimpleConvNet;
use striate::shape::{ShapeError, Window};

fn input() -> Array4<f32> {
    array![[[[1., 2., 3., 0.], [0., 1., 2., 3.], [3., 0., 1., 2.], [2., 3., 0., 1.]]]]
}

fn filter() -> Array4<f32> {
    array![[[[2., 0., 1.], [0., 1., 2.], [1., 0., 2.]]]]
}

#[test]
fn section_7_2_2_convolution() {
    let mut plain = Convolution::new(filter(), array![0.], 1, 0).unwrap();
    assert_eq!(plain.forward(&input()).unwrap(), array![[[[15., 16.], [6., 15.]]]]);
    let mut biased = Convolution::new(filter(), array![3.], 1, 0).unwrap();
    assert_eq!(biased.forward(&input()).unwrap(), array![[[[18., 19.], [9., 18.]]]]);
}

#[test]
fn section_7_2_3_padding() {
    let mut same = Convolution::new(filter(), array![0.], 1, 1).unwrap();
    let y = same.forward(&input()).unwrap();
    assert_eq!(y.dim(), (1, 1, 4, 4), "a 4x4 input padded by 1 is 6x6");
    assert_eq!(y[[0, 0, 1, 1]], 15.0);
}

#[test]
fn section_7_2_4_stride() {
    let mut strided = Convolution::new(filter(), array![0.], 2, 0).unwrap();
    assert_eq!(strided.forward(&Array4::ones((1, 1, 7, 7))).unwrap(), Array4::from_elem((1, 1, 3, 3), 9.0));
    assert_eq!(Window::square(3, 1, 1).output((4, 4)).unwrap(), (4, 4));
    assert_eq!(Window::square(3, 2, 0).output((7, 7)).unwrap(), (3, 3));
    assert_eq!(Window::square(5, 3, 2).output((28, 31)).unwrap(), (10, 11));
    let error = strided.forward(&Array4::ones((1, 1, 8, 8))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "an input of height 8 with kernel 3, padding 0 and stride 2 does not divide evenly: (8 + 2*0 - 3) / 2 leaves a \
         rest; the nearest heights that fit are 7 and 9, or choose another padding or stride, or floor rounding"
    );
}

#[test]
fn sections_7_2_5_to_7_2_7_channels_filters_batches() {
    // Channels are summed over, each filter gives one map with its own bias, each sample is on its own.
    let w = Array4::from_shape_fn((5, 3, 3, 3), |(f, ..)| f as f32);
    let mut convolution = Convolution::new(w, Array1::from_iter((0..5).map(|f| 100.0 * f as f32)), 1, 0).unwrap();
    let x = Array4::from_shape_fn((10, 3, 4, 6), |(n, ..)| n as f32);
    let y = convolution.forward(&x).unwrap();
    assert_eq!(y.dim(), (10, 5, 2, 4));
    for ((n, f, ..), &value) in y.indexed_iter() {
        assert_eq!(value, 27.0 * (n * f) as f32 + 100.0 * f as f32);
    }
    let wrong = convolution.forward(&Array4::ones((1, 4, 4, 6))).unwrap_err();
    assert!(matches!(wrong, ShapeError::Mismatch { .. }), "{wrong}");
}

#[test]
fn section_7_3_pooling() {
    let x = array![[[[1., 2., 1., 0.], [0., 1., 2., 3.], [3., 0., 1., 2.], [2., 4., 0., 1.]]]];
    let mut max = Pooling::max(Window::square(2, 2, 0));
    assert_eq!(max.forward(&x).unwrap(), array![[[[2., 3.], [4., 2.]]]]);
    let mut average = Pooling::average(Window::square(2, 2, 0));
    assert_eq!(average.forward(&x).unwrap(), array![[[[1., 1.5], [2.25, 1.]]]]);
    // The book's Pooling forgets its padding in the output size.
    let mut padded = Pooling::max(Window::square(2, 2, 1));
    assert_eq!(padded.forward(&x).unwrap(), array![[[[1., 2., 0.], [3., 2., 3.], [2., 4., 1.]]]]);
}

#[test]
fn section_7_4_im2col() {
    assert_eq!(im2col(Array4::zeros((1, 3, 7, 7)).view(), Window::square(5, 1, 0)).unwrap().dim(), (9, 75));
    assert_eq!(im2col(Array4::zeros((10, 3, 7, 7)).view(), Window::square(5, 1, 0)).unwrap().dim(), (90, 75));
}

#[test]
fn section_7_5_simple_convnet() {
    let shapes = SimpleConvNet::default().description().shapes().unwrap();
    let sizes: Vec<usize> = shapes.iter().map(|s| s.len()).collect();
    assert_eq!(sizes, [30 * 24 * 24, 30 * 24 * 24, 30 * 12 * 12, 100, 100, 10]);
    // The same by book-style layers, one after the other.
    let mut convolution = Convolution::new(Array4::ones((30, 1, 5, 5)), Array1::zeros(30), 1, 0).unwrap();
    let mut pooling = Pooling::max(Window::square(2, 2, 0));
    let mut affine = Affine::new(ndarray::Array2::ones((4320, 100)), Array1::zeros(100)).unwrap();
    let x = Relu::new().forward(&convolution.forward(&Array4::ones((2, 1, 28, 28))).unwrap());
    let y = affine.forward(&pooling.forward(&x).unwrap()).unwrap();
    assert_eq!(y.dim(), (2, 100));
    assert_eq!(y[[1, 99]], 25.0 * 4320.0);
}
