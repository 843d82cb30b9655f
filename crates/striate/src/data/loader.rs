//! Batches of training images, those of a larger-than-memory data set prepared ahead of the step that needs them.

use super::{Augment, Dataset, Normalization, with_scratch};
use crate::kernels::softmax::SecondClass;
use rayon::prelude::*;
use std::sync::{
    Arc, Condvar, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// Numbers in one piece of a gathered batch.
const CHUNK: usize = 32 * 1024;

/// Gives batches of a data set, normalised, changed at random and mixed ([`Augment::mix`]).
///
/// A batch is a function of the seed, the epoch and the positions asked for, and of nothing else: not of the batches
/// before it, of the number of threads, or of whether the images lie in memory or in files. So a run can be resumed at
/// any step, and there is no state to save.
///
/// [`Loader::prepare`] says which batch will be asked for next. If the images have to be decoded, the threads of the
/// current rayon pool do that whenever they have nothing else to do, and help with the rest when the batch is asked
/// for. At most one batch is held ready, whatever the size of the data. Images in memory need no such thing: writing
/// them where they are wanted costs less than keeping them ready.
///
/// ```
/// use striate::data::{Augment, Dataset, Loader, Normalization, Pixels, one_class_names};
/// use striate::shape::Shape;
/// let pixels = Pixels::U8(vec![0, 51, 102, 255]);
/// let data = Dataset::new("tiny", Shape::new(1, 1, 2), pixels, vec![1, 0], one_class_names(2))?;
/// let mut loader = Loader::new(&data, Normalization::identity(), Augment::none(), 7);
/// let mut batch = [0.0; 4];
/// loader.prepare(1, &[1, 0]);
/// loader.batch(1, &[1, 0], &mut batch);
/// assert_eq!(batch, [0.4, 1.0, 0.0, 0.2]);
/// # Ok::<(), striate::data::DataError>(())
/// ```
pub struct Loader<'a> {
    data: &'a Dataset,
    normalization: Normalization,
    augment: Augment,
    seed: u64,
    /// The same things, shared with the threads that prepare; only if there is something to prepare.
    shared: Option<Arc<Shared>>,
    ahead: Option<Arc<Ahead>>,
    /// Room for images, to be used again.
    spare: Vec<Vec<f32>>,
}

struct Shared {
    data: Dataset,
    normalization: Normalization,
    augment: Augment,
    seed: u64,
}

/// A batch in preparation.
struct Ahead {
    epoch: usize,
    indices: Vec<usize>,
    /// Room for each image, which holds it once it is ready.
    images: Vec<Mutex<Vec<f32>>>,
    /// The first image that nobody has begun.
    next: AtomicUsize,
    ready: Mutex<usize>,
    all_ready: Condvar,
}

impl<'a> Loader<'a> {
    /// A loader that prepares nothing yet.
    pub fn new(data: &'a Dataset, normalization: Normalization, augment: Augment, seed: u64) -> Self {
        let shared = data.is_streamed().then(|| {
            let (normalization, augment) = (normalization.clone(), augment.clone());
            Arc::new(Shared { data: data.clone(), normalization, augment, seed })
        });
        Self { data, normalization, augment, seed, shared, ahead: None, spare: Vec::new() }
    }

    /// Begins to prepare the images at `indices` as they are in `epoch`, in place of whatever was prepared before. Comes
    /// back at once.
    ///
    /// # Panics
    /// The data set is empty.
    pub fn prepare(&mut self, epoch: usize, indices: &[usize]) {
        let Some(shared) = &self.shared else { return };
        assert!(!self.data.is_empty(), "the images must be the data set's");
        let mut room = std::mem::take(&mut self.spare).into_iter();
        let ahead = Arc::new(Ahead {
            epoch,
            indices: indices.to_vec(),
            images: indices.iter().map(|_| Mutex::new(room.next().unwrap_or_default())).collect(),
            next: AtomicUsize::new(0),
            ready: Mutex::new(0),
            all_ready: Condvar::new(),
        });
        // A task an image, so that a thread is never kept for long from the step that is running.
        for _ in indices {
            let (shared, ahead) = (Arc::clone(shared), Arc::clone(&ahead));
            rayon::spawn(move || ahead.advance(&shared));
        }
        self.ahead = Some(ahead);
    }

    /// Writes the images at `indices` into `out` in (N, C, H, W) order, as they are in `epoch`. An index beyond the data set
    /// begins again at its first image, changed otherwise ([`Dataset::gather_augmented`]).
    ///
    /// # Panics
    /// The data set is empty, or `out` does not hold exactly `indices.len()` images.
    pub fn batch(&mut self, epoch: usize, indices: &[usize], out: &mut [f32]) {
        match (&self.shared, self.ahead.take()) {
            (Some(shared), Some(ahead)) if (ahead.epoch, ahead.indices.as_slice()) == (epoch, indices) => {
                self.spare = ahead.finish(shared, out);
            }
            _ => gather(self.data, indices, &self.normalization, (&self.augment, self.seed, epoch), out),
        }
        // Means of normalised images are the normalised means.
        let shape = self.data.shape();
        with_scratch(shape.len(), |scratch| self.augment.mix(self.seed, epoch, indices, shape, out, scratch));
    }

    /// Writes the second classes of the images at `indices`, as [`Loader::batch`] mixes them in `epoch`.
    ///
    /// # Panics
    /// As for [`Loader::batch`].
    pub fn second_classes(&self, epoch: usize, indices: &[usize], out: &mut [SecondClass]) {
        let (shape, labels) = (self.data.shape(), self.data.labels());
        self.augment.second_classes(self.seed, epoch, indices, shape, labels, out);
    }
}

impl Ahead {
    /// Prepares an image that nobody has begun, if there is one.
    fn advance(&self, shared: &Shared) {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        let (Some(&index), Some(place)) = (self.indices.get(at), self.images.get(at)) else { return };
        let Shared { data, normalization, augment, seed } = shared;
        let mut image = std::mem::take(&mut *place.lock().unwrap_or_else(PoisonError::into_inner));
        image.resize(data.shape().len(), 0.0);
        data.gather_augmented(&[index], normalization, augment, *seed, self.epoch, &mut image);
        *place.lock().unwrap_or_else(PoisonError::into_inner) = image;
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        *ready += 1;
        if *ready == self.indices.len() {
            self.all_ready.notify_all();
        }
    }

    /// Prepares what is left, waits for what others have begun, and writes the batch; gives the room that it took.
    fn finish(&self, shared: &Shared, out: &mut [f32]) -> Vec<Vec<f32>> {
        let sample = shared.data.shape().len().max(1);
        assert_eq!(out.len(), self.indices.len() * sample, "the buffer must hold the images asked for, no more");
        self.images.par_iter().for_each(|_| self.advance(shared));
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = self.all_ready.wait_while(ready, |ready| *ready < self.indices.len());
        drop(ready);
        let images = self.images.par_iter().zip(out.par_chunks_exact_mut(sample)).map(|(image, out)| {
            let image = std::mem::take(&mut *image.lock().unwrap_or_else(PoisonError::into_inner));
            out.copy_from_slice(&image);
            image
        });
        images.collect()
    }
}

/// Writes the images at `indices` into `input`, changed as `augment` says under the seed in the epoch; the pieces are
/// shared among the threads.
pub(crate) fn gather(
    data: &Dataset,
    indices: &[usize],
    normalization: &Normalization,
    (augment, seed, epoch): (&Augment, u64, usize),
    input: &mut [f32],
) {
    let sample = data.shape().len().max(1);
    // Decoding is worth sharing image by image.
    let images = if data.is_streamed() { 1 } else { (CHUNK / sample).max(1) };
    input
        .par_chunks_mut(images * sample)
        .zip(indices.par_chunks(images))
        .for_each(|(input, indices)| data.gather_augmented(indices, normalization, augment, seed, epoch, input));
}
