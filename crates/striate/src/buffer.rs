//! Memory for many numbers: an arena, all parameters, an optimizer's state.

use std::collections::TryReserveError;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Numbers of a cache line: a buffer starts on one.
pub(crate) const CACHE_LINE: usize = 16;

/// Numbers from which a buffer asks for huge pages: 4 MiB. The memory of a fully connected layer that is read once in order
/// then comes a tenth faster, and columns of it are found without a walk through the page table for each row.
#[cfg(all(target_os = "linux", not(miri)))]
const LARGE: usize = 1 << 20;

/// Zeros to begin with, starting on a cache line; on huge pages where they are many and the system has such.
pub(crate) struct Buffer {
    store: Store,
    start: usize,
    len: usize,
}

enum Store {
    Heap(Vec<f32>),
    #[cfg(all(target_os = "linux", not(miri)))]
    Pages(memmap2::MmapMut),
}

impl Buffer {
    /// So many zeros.
    ///
    /// # Errors
    /// They can't be had.
    pub(crate) fn zeros(len: usize) -> Result<Self, TryReserveError> {
        #[cfg(all(target_os = "linux", not(miri)))]
        if len >= LARGE
            && let Some(bytes) = len.checked_mul(size_of::<f32>())
            && let Ok(pages) = memmap2::MmapMut::map_anon(bytes)
        {
            // A wish: without huge pages the memory is as good as any.
            let _ = pages.advise(memmap2::Advice::HugePage);
            return Ok(Self { store: Store::Pages(pages), start: 0, len });
        }
        let mut values = Vec::new();
        values.try_reserve_exact(len.saturating_add(CACHE_LINE))?;
        values.resize(len + CACHE_LINE, 0.0);
        let start = values.as_ptr().align_offset(CACHE_LINE * size_of::<f32>()).min(CACHE_LINE);
        Ok(Self { store: Store::Heap(values), start, len })
    }

    /// As many zeros. As for a `Vec`, where they can't be had the process ends.
    pub(crate) fn zeros_like(&self) -> Self {
        Self::zeros(self.len).unwrap_or_else(|_| {
            let layout = std::alloc::Layout::array::<f32>(self.len).unwrap_or(std::alloc::Layout::new::<f32>());
            std::alloc::handle_alloc_error(layout)
        })
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let all = match &self.store {
            Store::Heap(values) => &values[..],
            #[cfg(all(target_os = "linux", not(miri)))]
            Store::Pages(pages) => bytemuck::cast_slice(pages),
        };
        &all[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        let all = match &mut self.store {
            Store::Heap(values) => &mut values[..],
            #[cfg(all(target_os = "linux", not(miri)))]
            Store::Pages(pages) => bytemuck::cast_slice_mut(pages),
        };
        &mut all[self.start..self.start + self.len]
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = self.zeros_like();
        copy.copy_from_slice(self);
        copy
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_ones_are_zeros_on_a_cache_line_and_copies_are_their_own() {
        for len in [0, 1, 15, 17, 1 << 20, (1 << 20) + 3] {
            let mut buffer = Buffer::zeros(len).unwrap();
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|&v| v == 0.0));
            assert!((buffer.as_ptr() as usize).is_multiple_of(64), "{len}");
            buffer.fill(1.0);
            let mut copy = buffer.clone();
            assert!(copy == buffer && (copy.as_ptr() as usize).is_multiple_of(64));
            copy.fill(2.0);
            assert!(buffer.iter().all(|&v| v == 1.0));
        }
    }

    #[test]
    fn what_no_memory_holds_is_an_error() {
        assert!(Buffer::zeros(usize::MAX / 8).is_err());
        assert!(Buffer::zeros(usize::MAX).is_err());
    }
}
