//! What `im2col` would cost each convolution (section 7.4.2), and what this engine does instead.

use super::{ExplainError, lens};
use crate::layers::Layer;
use crate::network::{Description, Mode, Plan};
use crate::shape::checked_product;

/// One convolution's unrolled matrix against its input, for a batch.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Im2colCost {
    /// The layer's name.
    pub layer: String,
    /// Numbers of the input.
    pub input: usize,
    /// Rows of the matrix: N OH OW.
    pub rows: usize,
    /// Columns of the matrix: C FH FW.
    pub columns: usize,
    /// Numbers of the matrix.
    pub elements: usize,
    /// Bytes of the matrix.
    pub bytes: usize,
    /// How many times as many numbers as the input.
    pub growth: f64,
    /// Bytes of workspace that this engine takes for the layer, with those fused to it, in a forward pass.
    pub workspace_bytes: usize,
    /// How this engine computes it.
    pub method: String,
}

/// The cost for every convolution, in order, for a batch of `batch` images.
///
/// ```
/// use striate::{explain, models::simple_convnet::SimpleConvNet};
/// let cost = &explain::im2col_cost(&SimpleConvNet::default().description(), 100)?[0];
/// // 5x5 windows overlap: the matrix is more than eighteen times as large as the images.
/// assert_eq!((cost.rows, cost.columns, cost.bytes), (100 * 24 * 24, 25, 5_760_000));
/// assert!(cost.growth > 18.0 && cost.workspace_bytes < cost.bytes);
/// # Ok::<(), striate::explain::ExplainError>(())
/// ```
///
/// # Errors
/// A network without convolution, or a batch of 0 or beyond any memory.
pub fn im2col_cost(description: &Description, batch: usize) -> Result<Vec<Im2colCost>, ExplainError> {
    let nodes = description.nodes()?;
    let plan = Plan::new(description, batch, Mode::Inference)?;
    let mut costs = Vec::new();
    for node in nodes.iter().filter(|node| lens::is_convolution(node)) {
        let Layer::Convolution(options) = &node.named.layer else { continue };
        let shape_error = |source| crate::network::NetworkError::Layer { layer: node.named.name.clone(), source };
        let (height, width) = options.window.kernel;
        let rows = checked_product(&[batch, node.output.area()]).map_err(shape_error)?;
        let columns = node.input.channels * height * width;
        let elements = checked_product(&[rows, columns]).map_err(shape_error)?;
        let input = node.input.checked_len(batch).map_err(shape_error)?;
        // A step is called after the layers that it does.
        let step = plan.steps().find(|step| step.name.split('+').any(|name| name == node.named.name));
        costs.push(Im2colCost {
            layer: node.named.name.clone(),
            input,
            rows,
            columns,
            elements,
            bytes: elements * size_of::<f32>(),
            growth: elements as f64 / input as f64,
            workspace_bytes: step.as_ref().map_or(0, |step| step.workspace_bytes),
            method: step.map_or_else(String::new, |step| step.method),
        });
    }
    if costs.is_empty() {
        return Err(ExplainError::NeedsConvolution {
            view: "im2col",
            network: description.name.clone(),
            layers: nodes.iter().map(|node| node.named.name.clone()).collect(),
        });
    }
    Ok(costs)
}
