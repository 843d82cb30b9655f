//! A network as a diagram: what flows through it, layer by layer, with the shapes.

use super::svg::{Anchor, Color, FAINT, INK, Style, Svg, clean, text_width};

const WIDTH: f64 = 680.0;
const LEFT: f64 = 180.0;
/// The widest block.
const BLOCK: f64 = 210.0;
const ROW: f64 = 46.0;
const TOP: f64 = 64.0;
/// Layers drawn at most.
const MOST: usize = 400;

/// A layer to draw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DiagramLayer {
    /// Its name.
    pub name: String,
    /// Its kind: `Convolution`.
    pub kind: String,
    /// Its options in a few words.
    pub words: String,
    /// Channels, height and width of its output.
    pub output: (usize, usize, usize),
    /// Learnt numbers.
    pub parameters: usize,
    /// Positions of the layers whose outputs it takes; `None` for the network's input.
    pub inputs: Vec<Option<usize>>,
}

/// The diagram as SVG, from the input at the top to the classes. A block is the wider, the more channels its output has, and
/// the higher, the larger its maps; inputs from further up than the layer before come in from the side.
///
/// ```
/// use striate::draw::{DiagramLayer, diagram};
/// let layer = DiagramLayer {
///     name: "Conv1".into(),
///     kind: "Convolution".into(),
///     words: "30 filters 5x5".into(),
///     output: (30, 24, 24),
///     parameters: 780,
///     inputs: vec![None],
/// };
/// let svg = diagram("tiny", (1, 28, 28), &[layer]);
/// assert!(svg.contains("Conv1") && svg.contains("30 x 24 x 24"));
/// ```
pub fn diagram(title: &str, input: (usize, usize, usize), layers: &[DiagramLayer]) -> String {
    let drawn = &layers[..layers.len().min(MOST)];
    let rows = drawn.len() + 1;
    let left_out = layers.len() - drawn.len();
    let height = TOP + ROW * rows as f64 + if left_out > 0 { 40.0 } else { 16.0 };
    let mut svg = Svg::new(WIDTH, height, title);
    let start = |size, color| Style::new(size, color, Anchor::Start);
    svg.text((16.0, 24.0), &clean(title, 50), start(17.0, INK).bold());
    let all: usize = layers.iter().map(|layer| layer.parameters).sum();
    let words = format!("{} layers, {} learnt numbers", layers.len(), super::svg::grouped(all));
    svg.text((16.0, 44.0), &words, start(12.0, FAINT));
    let widest = drawn.iter().map(|layer| layer.output.0).chain([input.0]).max().unwrap_or(1);
    let tallest = drawn.iter().map(|layer| layer.output.1).chain([input.1]).max().unwrap_or(1);
    // By the logarithm, or the input would be a hair beside the fully connected layers.
    let share = |value: usize, most: usize| (1.0 + value as f64).ln() / (1.0 + most as f64).ln();
    let size = |(channels, height, _): (usize, usize, usize)| {
        ((BLOCK * share(channels, widest)).max(14.0), (30.0 * share(height, tallest)).max(6.0))
    };
    let middle = |row: usize| TOP + ROW * (row as f64 + 0.5);
    let center = LEFT + BLOCK / 2.0;
    for (at, layer) in drawn.iter().enumerate() {
        let row = at + 1;
        for source in &layer.inputs {
            let from = source.map_or(0, |source| source + 1);
            let outputs = if from == 0 { input } else { drawn.get(from - 1).map_or(input, |layer| layer.output) };
            if from + 1 == row {
                let below = middle(from) + size(outputs).1 / 2.0;
                svg.line((center, below), (center, middle(row) - size(layer.output).1 / 2.0), FAINT, 1.5);
            } else {
                // Further to the right, the further it goes, so that nested shortcuts stay apart.
                let side = LEFT + BLOCK + 10.0 + (2.0 * (row - from) as f64).min(24.0);
                let (a, b) = (middle(from), middle(row));
                svg.line((center + size(outputs).0 / 2.0, a), (side, a), SHORTCUT, 1.5);
                svg.line((side, a), (side, b), SHORTCUT, 1.5);
                svg.line((center + size(layer.output).0 / 2.0, b), (side, b), SHORTCUT, 1.5);
            }
        }
    }
    let mut block = |row: usize, name: &str, kind: &str, words: &str, output: (usize, usize, usize)| {
        let (y, (width, height)) = (middle(row), size(output));
        svg.rect((center - width / 2.0, y - height / 2.0), (width, height), color(kind), Some(words));
        let right = Style::new(13.0, INK, Anchor::End);
        svg.text((LEFT - 14.0, y - 7.0), &clean(name, 20), right.bold());
        svg.text((LEFT - 14.0, y + 8.0), &clean(kind, 20), Style { size: 11.0, color: FAINT, ..right });
        let (channels, rows, columns) = output;
        let shape = if rows * columns == 1 { channels.to_string() } else { format!("{channels} x {rows} x {columns}") };
        let x = LEFT + BLOCK + 42.0;
        svg.text((x, y - 7.0), &shape, start(13.0, INK));
        let room = ((WIDTH - x - 8.0) / text_width("0", 10.5)) as usize;
        svg.text((x, y + 8.0), &clean(words, room), start(10.5, FAINT));
    };
    block(0, "input", "Input", "", input);
    for (at, layer) in drawn.iter().enumerate() {
        block(at + 1, &layer.name, &layer.kind, &layer.words, layer.output);
    }
    if left_out > 0 {
        svg.text((16.0, height - 20.0), &format!("and {left_out} more layers"), start(13.0, FAINT));
    }
    svg.finish()
}

const SHORTCUT: Color = [150, 90, 170];

/// Kinds of a family have one colour.
fn color(kind: &str) -> Color {
    match kind {
        "Input" => [90, 90, 90],
        "Convolution" => [0, 114, 178],
        "Affine" => [213, 94, 0],
        kind if kind.contains("Pooling") => [0, 135, 100],
        kind if kind.contains("Norm") => [170, 150, 40],
        "Add" | "Concat" => SHORTCUT,
        _ => [150, 160, 170],
    }
}

#[cfg(test)]
mod tests {
    use super::super::svg::tests::well_formed;
    use super::*;

    fn layer(name: &str, output: (usize, usize, usize), inputs: Vec<Option<usize>>) -> DiagramLayer {
        DiagramLayer { name: name.into(), kind: "Convolution".into(), output, inputs, ..DiagramLayer::default() }
    }

    #[test]
    fn layers_shapes_and_shortcuts_are_drawn() {
        let layers = [
            layer("Conv1", (16, 8, 8), vec![None]),
            layer("Conv2", (16, 8, 8), vec![Some(0)]),
            layer("Sum", (16, 8, 8), vec![Some(1), Some(0)]),
            layer("Affine", (10, 1, 1), vec![Some(2)]),
        ];
        let svg = diagram("Net", (3, 8, 8), &layers);
        let texts = well_formed(&svg);
        for words in ["Net", "input", "3 x 8 x 8", "Sum", "16 x 8 x 8", "10", "4 layers, 0 learnt numbers"] {
            assert!(texts.iter().any(|t| t == words), "{words}: {texts:?}");
        }
        // Four steps down, and one shortcut of three strokes.
        assert_eq!(svg.matches("<line").count(), 4 + 3);
    }

    #[test]
    fn anything_is_drawn() {
        well_formed(&diagram("", (0, 0, 0), &[]));
        let hostile = layer("</svg><script>", (usize::MAX, usize::MAX, 1), vec![Some(99), None]);
        let svg = diagram("<&", (1, 1, 1), &vec![hostile; 500]);
        assert!(!svg.contains("<script"));
        assert!(well_formed(&svg).iter().any(|words| words == "and 100 more layers"));
    }
}
