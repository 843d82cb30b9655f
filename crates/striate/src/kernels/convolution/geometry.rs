//! Sizes of a convolution, and where its filters stand in memory.

use crate::shape::{Rounding, Shape, ShapeError, Window, checked_product};

/// A convolution with every size of one sample fixed.
///
/// Channels and filters are cut into `groups` runs of equal length; a filter sees only the channels of its own run.
/// Filters are (FN, C / groups, FH, FW), so a group's filters lie in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) input: Shape,
    pub(crate) window: Window,
    pub(crate) output: Shape,
    pub(crate) groups: usize,
}

impl Geometry {
    pub(crate) fn new(input: Shape, filters: usize, groups: usize, window: Window) -> Result<Self, ShapeError> {
        if input.is_empty() || filters == 0 {
            let found = vec![filters, input.channels, input.height, input.width];
            return Err(ShapeError::Empty { what: "the convolution (filters, channels, height, width)", found });
        }
        if window.rounding == Rounding::Ceil {
            return Err(ShapeError::CeilConvolution);
        }
        let channels = input.channels;
        if groups == 0 || !channels.is_multiple_of(groups) || !filters.is_multiple_of(groups) {
            return Err(ShapeError::Groups { channels, filters, groups });
        }
        let (height, width) = window.output((input.height, input.width))?;
        let output = Shape::new(filters, height, width);
        checked_product(&[filters, channels, window.kernel.0, window.kernel.1])?;
        checked_product(&[channels, window.kernel.0, window.kernel.1, height, width])?;
        output.checked_len(1)?;
        Ok(Self { input, window, output, groups })
    }

    pub(crate) fn filters(&self) -> usize {
        self.output.channels
    }

    /// Channels that one filter sees.
    pub(crate) fn group_channels(&self) -> usize {
        self.input.channels / self.groups
    }

    /// Filters that see the same channels.
    pub(crate) fn group_filters(&self) -> usize {
        self.output.channels / self.groups
    }

    /// Places of a filter in one channel.
    pub(crate) fn taps(&self) -> usize {
        self.window.kernel.0 * self.window.kernel.1
    }

    /// Weights of one filter.
    pub(crate) fn depth(&self) -> usize {
        self.group_channels() * self.taps()
    }

    /// Weights of all filters.
    pub(crate) fn weights(&self) -> usize {
        self.filters() * self.depth()
    }

    /// Output pixels of one filter.
    pub(super) fn pixels(&self) -> usize {
        self.output.area()
    }
}
