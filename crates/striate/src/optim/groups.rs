//! Which parts of the flat buffer an optimizer treats in which way, and the one sweep over all of them.

use super::CHUNK;
use crate::kernels::isa::vectorize;
use std::ops::Range;

/// How a range of parameters follows its gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By the optimizer's rule, weight decay included: weights.
    Decayed,
    /// By the optimizer's rule without weight decay: biases, scales and shifts, where those should not shrink.
    Plain,
    /// Not learnt: the place of the gradient holds the step to take, and the update is `value -= gradient`, without
    /// learning rate, clipping or state. Running means and variances of a batch normalization.
    Statistic,
    /// Never changed.
    Frozen,
}

impl Kind {
    /// Whether the gradient is one, and used.
    fn is_learnt(self) -> bool {
        matches!(self, Self::Decayed | Self::Plain)
    }
}

/// The flat buffer of parameters cut into ranges, one after the other without gaps, each with its [`Kind`].
///
/// ```
/// use striate::optim::{Groups, Kind, OptimizerOptions};
/// let mut groups = Groups::default();
/// groups.push(2, Kind::Decayed);
/// groups.push(1, Kind::Plain);
/// groups.push(1, Kind::Statistic);
/// let mut optimizer = "sgd:weight_decay=0.5".parse::<OptimizerOptions>()?.build_grouped(&groups)?;
/// let mut parameters = [4.0, 2.0, 4.0, 4.0];
/// optimizer.update(0.5, &mut parameters, &[0.0, 1.0, 1.0, 1.0]);
/// assert_eq!(parameters, [3.0, 1.0, 3.5, 3.0]);
/// # Ok::<(), striate::optim::OptimError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Where each group ends, with its kind; neighbours differ in kind.
    ends: Vec<(usize, Kind)>,
    /// Which of the parameters are matrices, in order.
    matrices: Vec<Matrix>,
}

/// A matrix among the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matrix {
    start: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    rows_are_outputs: bool,
    kind: Kind,
}

impl Matrix {
    /// Its place in the flat buffer.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.start + self.rows * self.columns
    }

    /// Whether weight decay acts on it.
    pub(super) fn is_decayed(&self) -> bool {
        self.kind == Kind::Decayed
    }

    /// The square root of outputs over inputs, but at least 1.
    pub(super) fn gain(&self) -> f32 {
        let (rows, columns) = (self.rows as f64, self.columns as f64);
        let ratio = if self.rows_are_outputs { rows / columns } else { columns / rows };
        ratio.max(1.0).sqrt() as f32
    }
}

impl From<usize> for Groups {
    /// So many parameters, all [`Kind::Decayed`].
    fn from(len: usize) -> Self {
        let mut groups = Self::default();
        groups.push(len, Kind::Decayed);
        groups
    }
}

impl From<&Groups> for Groups {
    fn from(groups: &Groups) -> Self {
        groups.clone()
    }
}

impl Groups {
    /// Adds `len` parameters at the end.
    ///
    /// # Panics
    /// Beyond `usize::MAX` parameters in all.
    pub fn push(&mut self, len: usize, kind: Kind) {
        let end = self.len().checked_add(len).expect("parameters of one buffer can be counted");
        match self.ends.last_mut() {
            Some((last, same)) if *same == kind => *last = end,
            _ if len == 0 => {}
            _ => self.ends.push((end, kind)),
        }
    }

    /// Adds a matrix of weights at the end, `rows` by `columns` in row order, for optimizers that treat a matrix as a
    /// whole ([`Muon`](super::Muon)); for the others it is [`Groups::push`]. Filters (FN, C, FH, FW) have their FN outputs
    /// as rows, affine weights (inputs, outputs) have them as columns.
    ///
    /// # Panics
    /// As for [`Groups::push`].
    pub fn push_matrix(&mut self, rows: usize, columns: usize, rows_are_outputs: bool, kind: Kind) {
        let start = self.len();
        self.push(rows.checked_mul(columns).expect("parameters of one buffer can be counted"), kind);
        if rows * columns > 0 {
            self.matrices.push(Matrix { start, rows, columns, rows_are_outputs, kind });
        }
    }

    /// The matrices that are learnt.
    pub(super) fn learnt_matrices(&self) -> Vec<Matrix> {
        self.matrices.iter().copied().filter(|matrix| matrix.kind.is_learnt()).collect()
    }

    /// The same parameters with every matrix frozen that is learnt.
    pub(super) fn without_matrices(&self) -> Self {
        let mut others = Self::default();
        let mut matrices = self.learnt_matrices().into_iter().map(|matrix| matrix.range()).peekable();
        for (mut range, kind) in self.iter() {
            while let Some(matrix) = matrices.next_if(|matrix| matrix.start < range.end) {
                others.push(matrix.start - range.start, kind);
                others.push(matrix.len(), Kind::Frozen);
                range.start = matrix.end;
            }
            others.push(range.len(), kind);
        }
        others
    }

    /// How many parameters there are.
    pub fn len(&self) -> usize {
        self.ends.last().map_or(0, |&(end, _)| end)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The ranges in order; neighbours differ in kind.
    pub fn iter(&self) -> impl Iterator<Item = (Range<usize>, Kind)> {
        self.within(0..self.len())
    }

    /// The parts of the groups that lie in `range`.
    fn within(&self, range: Range<usize>) -> impl Iterator<Item = (Range<usize>, Kind)> {
        let first = self.ends.partition_point(|&(end, _)| end <= range.start);
        let mut start = range.start;
        self.ends[first..].iter().map_while(move |&(end, kind)| {
            let part = start..end.min(range.end);
            start = end;
            (!part.is_empty()).then_some((part, kind))
        })
    }

    /// The length (Euclidean norm) of all gradients that are learnt from; statistics and frozen parameters do not count.
    ///
    /// Squares are added in f64 in an order that depends on the number of parameters alone, so the bits do not depend on
    /// the number of threads.
    ///
    /// ```
    /// assert_eq!(striate::optim::Groups::from(2).gradient_norm(&[3.0, 4.0]), 5.0);
    /// ```
    ///
    /// # Panics
    /// Unless there are as many gradients as parameters.
    pub fn gradient_norm(&self, gradients: &[f32]) -> f64 {
        check_length(self.len(), gradients.len(), "gradients");
        self.learnt_squares(0, gradients).sqrt()
    }

    fn learnt_squares(&self, start: usize, gradients: &[f32]) -> f64 {
        if gradients.len() > CHUNK {
            let middle = middle(gradients.len());
            let (left, right) = gradients.split_at(middle);
            let (left, right) =
                rayon::join(|| self.learnt_squares(start, left), || self.learnt_squares(start + middle, right));
            return left + right;
        }
        let learnt = self.within(start..start + gradients.len()).filter(|(_, kind)| kind.is_learnt());
        learnt.map(|(range, _)| squares(&gradients[range.start - start..range.end - start])).sum()
    }

    /// One parallel pass over everything: `rule(decayed, weights, gradients, state)` for every piece of a learnt group,
    /// `decayed` telling whether weight decay acts on it; statistics take their step, frozen parameters stay. A piece is at most
    /// [`CHUNK`] long and lies in one group, and each piece is seen once. Allocates nothing.
    ///
    /// # Panics
    /// Unless parameters and gradients have the length of the groups.
    pub(super) fn sweep<const N: usize>(
        &self,
        parameters: &mut [f32],
        gradients: &[f32],
        state: [&mut [f32]; N],
        rule: impl Fn(bool, &mut [f32], &[f32], [&mut [f32]; N]) + Sync,
    ) {
        check_length(self.len(), parameters.len(), "of them");
        check_length(self.len(), gradients.len(), "gradients");
        self.sweep_part(0, parameters, gradients, state, &rule);
    }

    fn sweep_part<const N: usize>(
        &self,
        start: usize,
        mut parameters: &mut [f32],
        mut gradients: &[f32],
        mut state: [&mut [f32]; N],
        rule: &(impl Fn(bool, &mut [f32], &[f32], [&mut [f32]; N]) + Sync),
    ) {
        if parameters.len() > CHUNK {
            let middle = middle(parameters.len());
            let (left, right) = parameters.split_at_mut(middle);
            let (left_gradients, right_gradients) = gradients.split_at(middle);
            let (left_state, right_state) = split(state, middle);
            rayon::join(
                || self.sweep_part(start, left, left_gradients, left_state, rule),
                || self.sweep_part(start + middle, right, right_gradients, right_state, rule),
            );
            return;
        }
        for (range, kind) in self.within(start..start + parameters.len()) {
            let (w, g, s);
            (w, parameters) = parameters.split_at_mut(range.len());
            (g, gradients) = gradients.split_at(range.len());
            (s, state) = split(state, range.len());
            match kind {
                Kind::Decayed | Kind::Plain => rule(kind == Kind::Decayed, w, g, s),
                Kind::Statistic => vectorize(|| w.iter_mut().zip(g).for_each(|(w, g)| *w -= g)),
                Kind::Frozen => {}
            }
        }
    }
}

/// Where to cut in two: between whole chunks, so that pieces do not depend on how the cuts are nested.
fn middle(len: usize) -> usize {
    len.div_ceil(CHUNK).div_ceil(2) * CHUNK
}

fn split<const N: usize>(state: [&mut [f32]; N], middle: usize) -> ([&mut [f32]; N], [&mut [f32]; N]) {
    let mut right: [&mut [f32]; N] = std::array::from_fn(|_| Default::default());
    let mut places = right.iter_mut();
    let left = state.map(|array| {
        let (left, rest) = array.split_at_mut(middle);
        if let Some(place) = places.next() {
            *place = rest;
        }
        left
    });
    (left, right)
}

/// The sum of squares, the threads sharing the work; its bits do not depend on how many there are.
pub(super) fn sum_of_squares(values: &[f32]) -> f64 {
    if values.len() <= CHUNK {
        return squares(values);
    }
    let (left, right) = values.split_at(middle(values.len()));
    let (left, right) = rayon::join(|| sum_of_squares(left), || sum_of_squares(right));
    left + right
}

/// The sum of squares in eight running sums, added at the end.
fn squares(values: &[f32]) -> f64 {
    const LANES: usize = 8;
    vectorize(|| {
        let mut sums = [0.0; LANES];
        let (whole, rest) = values.as_chunks::<LANES>();
        for values in whole {
            for (sum, &v) in sums.iter_mut().zip(values) {
                *sum += f64::from(v) * f64::from(v);
            }
        }
        for (sum, &v) in sums.iter_mut().zip(rest) {
            *sum += f64::from(v) * f64::from(v);
        }
        sums.iter().sum()
    })
}

/// Panics with both numbers when a slice does not belong to the groups.
#[inline]
fn check_length(len: usize, found: usize, what: &str) {
    assert_eq!(found, len, "an optimizer for {len} parameters was given {found} {what}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::OptimizerOptions;
    use crate::random::{Purpose, Random};
    use proptest::prelude::*;

    const KINDS: [Kind; 4] = [Kind::Decayed, Kind::Plain, Kind::Statistic, Kind::Frozen];

    fn groups(parts: &[(usize, usize)]) -> Groups {
        let mut groups = Groups::default();
        parts.iter().for_each(|&(len, kind)| groups.push(len, KINDS[kind]));
        groups
    }

    fn numbers(len: usize, stream: u64) -> Vec<f32> {
        let random = Random::new(11, Purpose::Test, stream);
        (0..len as u64).map(|i| random.normal(i)).collect()
    }

    #[test]
    fn neighbours_of_one_kind_are_one_group() {
        let groups = groups(&[(0, 0), (3, 1), (2, 1), (0, 2), (4, 1), (1, 3)]);
        assert_eq!(groups.iter().collect::<Vec<_>>(), [(0..9, Kind::Plain), (9..10, Kind::Frozen)]);
        assert_eq!((groups.len(), groups.is_empty()), (10, false));
        assert!(Groups::from(0).is_empty() && Groups::default().iter().next().is_none());
        assert_eq!(groups.within(8..10).collect::<Vec<_>>(), [(8..9, Kind::Plain), (9..10, Kind::Frozen)]);
        assert_eq!(groups.within(3..4).collect::<Vec<_>>(), [(3..4, Kind::Plain)]);
    }

    #[test]
    fn matrices_have_places_and_gains() {
        let mut groups = Groups::default();
        groups.push(3, Kind::Decayed);
        groups.push_matrix(8, 2, true, Kind::Decayed);
        groups.push_matrix(8, 2, false, Kind::Plain);
        groups.push_matrix(0, 2, false, Kind::Plain);
        groups.push(1, Kind::Plain);
        groups.push_matrix(2, 2, true, Kind::Statistic);
        let found = groups.learnt_matrices();
        assert_eq!(
            found.iter().map(|m| (m.range(), m.gain(), m.is_decayed())).collect::<Vec<_>>(),
            [(3..19, 2.0, true), (19..35, 1.0, false)]
        );
        let rest = groups.without_matrices();
        let expected = [(0..3, Kind::Decayed), (3..35, Kind::Frozen), (35..36, Kind::Plain), (36..40, Kind::Statistic)];
        assert!(rest.iter().eq(expected), "{rest:?}");
    }

    #[test]
    fn the_norm_is_of_what_is_learnt() {
        let groups = groups(&[(1, 0), (1, 2), (1, 1), (1, 3)]);
        assert_eq!(groups.gradient_norm(&[3.0, f32::NAN, -4.0, f32::INFINITY]), 5.0);
        assert!(groups.gradient_norm(&[f32::NAN, 0.0, 0.0, 0.0]).is_nan());
        // Squares that f32 can't hold.
        assert_eq!(groups.gradient_norm(&[3e30, 0.0, 4e30, 0.0]) as f32, 5e30);
        assert_eq!(Groups::default().gradient_norm(&[]), 0.0);
    }

    #[test]
    fn the_norm_does_not_depend_on_the_number_of_threads() {
        let groups = groups(&[(CHUNK / 3, 0), (2 * CHUNK + 17, 1), (99, 2), (3 * CHUNK, 0), (5, 3)]);
        let gradients = numbers(groups.len(), 0);
        let norm = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| groups.gradient_norm(&gradients)).to_bits()
        };
        assert_eq!([norm(2), norm(3)], [norm(1); 2]);
        let expected: f64 = (groups.iter())
            .filter(|(_, kind)| kind.is_learnt())
            .flat_map(|(range, _)| gradients[range].iter().map(|&g| f64::from(g).powi(2)))
            .sum();
        assert!((f64::from_bits(norm(1)) / expected.sqrt() - 1.0).abs() < 1e-12);
    }

    /// Every kind as if it were alone: one sweep over groups is the same as an optimizer a group.
    fn check(options: OptimizerOptions, groups: &Groups) {
        let (learning_rate, scale) = (0.01, 0.5);
        let mut together = numbers(groups.len(), 1);
        let mut apart = together.clone();
        let mut optimizer = options.build_grouped(groups).unwrap();
        let gradients: Vec<Vec<f32>> = (2..4).map(|stream| numbers(groups.len(), stream)).collect();
        for g in &gradients {
            optimizer.update_scaled(learning_rate, scale, &mut together, g);
        }
        for (range, kind) in groups.iter() {
            let w = &mut apart[range.clone()];
            let alone = match kind {
                Kind::Decayed => Some(options),
                Kind::Plain => Some(options.with_weight_decay(0.0).unwrap_or(options)),
                _ => None,
            };
            let mut alone = alone.map(|options| options.build(range.len()).unwrap());
            for g in &gradients {
                match (&mut alone, kind) {
                    (Some(alone), _) => alone.update_scaled(learning_rate, scale, w, &g[range.clone()]),
                    (None, Kind::Statistic) => w.iter_mut().zip(&g[range.clone()]).for_each(|(w, g)| *w -= g),
                    _ => {}
                }
            }
            if !kind.is_learnt() {
                for (name, values) in optimizer.state() {
                    assert!(values[range.clone()].iter().all(|&v| v == 0.0), "{options}: {name}");
                }
            }
        }
        assert!(together.iter().map(|w| w.to_bits()).eq(apart.iter().map(|w| w.to_bits())), "{options}");
    }

    #[test]
    fn groups_across_chunks() {
        for name in OptimizerOptions::NAMES {
            let groups = groups(&[(CHUNK - 1, 0), (3, 2), (CHUNK, 1), (2 * CHUNK + 5, 0), (7, 3), (CHUNK, 2), (1, 1)]);
            check(name.parse().unwrap(), &groups);
        }
    }

    proptest! {
        #[test]
        fn each_group_is_as_if_alone(
            name in 0..OptimizerOptions::NAMES.len(),
            parts in proptest::collection::vec((0usize..40, 0usize..4), 0..12),
        ) {
            let options: OptimizerOptions = OptimizerOptions::NAMES[name].parse().unwrap();
            check(options.with_weight_decay(0.25).unwrap_or(options), &groups(&parts));
        }
    }
}
