//! Augmenting a batch allocates nothing but, once a thread, room for an image. Alone in its process, as the allocator
//! counts for all threads.

#[path = "support/counting.rs"]
mod counting;

use striate::data::{Augment, Dataset, Normalization, Pixels, one_class_names};
use striate::shape::Shape;

#[test]
fn only_the_first_image_of_a_thread_allocates() {
    let shape = Shape::new(3, 16, 16);
    let pixels = Pixels::U8((0..10 * shape.len()).map(|i| (i % 251) as u8).collect());
    let data = Dataset::new("stripes", shape, pixels, vec![0; 10], one_class_names(1)).unwrap();
    let augment: Augment = "flip,crop,resized-crop,affine,colour,erase,cutout".parse().unwrap();
    let (scale, mut out) = (Normalization::identity(), vec![0.0; 10 * shape.len()]);
    let indices: Vec<usize> = (0..10).collect();
    data.gather_augmented(&indices[..1], &scale, &augment, 1, 0, &mut out[..shape.len()]);
    let before = counting::allocations();
    (1..20).for_each(|epoch| data.gather_augmented(&indices, &scale, &augment, 1, epoch, &mut out));
    assert_eq!(counting::allocations() - before, 0);
}
