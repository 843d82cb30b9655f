//! The book's networks, told by the names and shapes of their arrays: `params.pkl` holds no word of the architecture.

use super::arrays::NamedArray;
use crate::models::deep_convnet::DeepConvNet;
use crate::models::simple_convnet::SimpleConvNet;
use crate::network::Description;
use crate::shape::Shape;

/// The book's network that has these arrays: `SimpleConvNet` (chapter 7, without padding, stride 1) of any sizes, or
/// `DeepConvNet` (chapter 8) for 28x28. Nothing for other arrays, nor for those of fully connected networks, whose shapes
/// don't tell the activation.
///
/// ```
/// use striate::formats::{NamedArray, book};
/// let array = |name: &str, shape: &[usize]| NamedArray { name: name.into(), shape: shape.into(), values: vec![] };
/// let arrays = [
///     array("W1", &[30, 1, 5, 5]), array("b1", &[30]),
///     array("W2", &[4320, 100]), array("b2", &[100]),
///     array("W3", &[100, 10]), array("b3", &[10]),
/// ];
/// let description = book::architecture(&arrays).unwrap();
/// assert_eq!((description.name.as_str(), description.input.height), ("simple-convnet", 28));
/// ```
pub fn architecture(arrays: &[NamedArray]) -> Option<Description> {
    let shape = |name: &str| arrays.iter().find(|array| array.name == name).map(|array| array.shape.as_slice());
    let description = match arrays.len() {
        6 => {
            let (&[filters, channels, size, _], &[rows, hidden], &[_, classes]) =
                (shape("W1")?, shape("W2")?, shape("W3")?)
            else {
                return None;
            };
            // Each filter's map was pooled from 2p x 2p to p x p.
            let pooled = rows.checked_div(filters)?.isqrt();
            let side = pooled.checked_mul(2)?.checked_add(size)?.checked_sub(1)?;
            let input = Shape::new(channels, side, side);
            SimpleConvNet { input, filters, filter_size: size, hidden, classes, ..SimpleConvNet::default() }
                .description()
        }
        16 => {
            let filters = |name: &str| shape(name).and_then(|shape| shape.first().copied());
            let (&[_, channels, ..], &[_, hidden], &[_, classes]) = (shape("W1")?, shape("W7")?, shape("W8")?) else {
                return None;
            };
            let filters = [filters("W1")?, filters("W3")?, filters("W5")?];
            let input = Shape::new(channels, 28, 28);
            DeepConvNet { input, filters, hidden, classes, ..DeepConvNet::default() }.description()
        }
        _ => return None,
    };
    let specs = description.parameter_specs().ok()?;
    let fits = specs.iter().all(|spec| shape(&spec.name) == Some(&spec.shape));
    (fits && specs.len() == arrays.len()).then_some(description)
}
