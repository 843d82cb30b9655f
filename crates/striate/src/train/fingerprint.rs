//! What tells one data set from another.

use super::TrainError;
use crate::data::{Dataset, Pixels};
use crate::formats::digest::{hex, little_endian};
use crate::shape::Shape;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// A data set in short: its sizes, and SHA-256 of its parts in their order.
///
/// Of image files that don't fit into memory only names and lengths are taken: decoding them all would take as long as an
/// epoch. Images that lie in memory and come from files have both, so a run out of files is known again in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Number of images.
    pub images: usize,
    /// Their size (C, H, W).
    pub shape: Shape,
    /// The classes, and how many images each has.
    pub classes: Vec<(String, usize)>,
    /// Of the labels.
    pub labels: String,
    /// Of the pixels, if they lie in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixels: Option<String>,
    /// Of the files' names and lengths, if each image has a file. The folder may lie anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
}

impl Fingerprint {
    /// The fingerprint of all images and labels.
    pub fn of(data: &Dataset) -> Self {
        let mut labels = Sha256::new();
        data.labels().iter().for_each(|&label| labels.update((label as u64).to_le_bytes()));
        // The hash of the pieces' hashes: pieces are hashed by all threads.
        const PIECE: usize = 1 << 20;
        let pixels: Option<Vec<[u8; 32]>> = match data.pixels() {
            Pixels::U8(values) => Some(values.par_chunks(PIECE).map(|piece| Sha256::digest(piece).into()).collect()),
            Pixels::F32(values) => {
                let digest = |piece: &[f32]| Sha256::digest(little_endian(piece)).into();
                Some(values.par_chunks(PIECE).map(digest).collect())
            }
            Pixels::Files(_) => None,
        };
        let files: Option<Vec<[u8; 32]>> =
            (0..data.len()).into_par_iter().map(|index| data.path(index).map(file_digest)).collect();
        let all = |pieces: Vec<[u8; 32]>| hex(&Sha256::digest(pieces.as_flattened()));
        Self {
            images: data.len(),
            shape: data.shape(),
            classes: data.class_names().iter().cloned().zip(data.class_sizes()).collect(),
            labels: hex(&labels.finalize()),
            pixels: pixels.map(all),
            files: files.map(all),
        }
    }

    /// One SHA-256 for all of it.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.shape.to_string());
        for (name, images) in &self.classes {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update((*images as u64).to_le_bytes());
        }
        for part in [Some(&self.labels), self.pixels.as_ref(), self.files.as_ref()] {
            hash.update(part.map_or("", String::as_str));
            hash.update("\n");
        }
        hex(&hash.finalize())
    }

    /// Whether `now` is the data that this is of, for a run that goes on; `what` is what errors call it.
    ///
    /// # Errors
    /// [`TrainError::Resume`] with the first thing that differs.
    pub(super) fn check(&self, now: &Self, what: &str) -> Result<(), TrainError> {
        let advice = "the data changed since the run began: give it what it began with, or start a new run";
        let differs = |what, found, expected| Err(TrainError::Resume { what, found, expected, advice });
        if self.shape != now.shape {
            return differs(format!("the size of {what}'s images"), self.shape.to_string(), now.shape.to_string());
        }
        let short = |digest: &str| format!("that of SHA-256 {}", digest.get(..16).unwrap_or(digest));
        if self.classes.len() != now.classes.len() {
            return differs(
                format!("the number of {what}'s classes"),
                self.classes.len().to_string(),
                now.classes.len().to_string(),
            );
        }
        for (place, ((name, images), (other, others))) in self.classes.iter().zip(&now.classes).enumerate() {
            if name != other {
                let what = format!("class {place} (counted from 0) of {what}");
                return differs(what, format!("{name:?}"), format!("{other:?}"));
            }
            if images != others {
                let what = format!("the number of {what}'s images of class {name:?}");
                return differs(what, images.to_string(), others.to_string());
            }
        }
        if self.labels != now.labels {
            return differs(format!("the order of {what}'s labels"), short(&self.labels), short(&now.labels));
        }
        // Pixels say more than names; a run out of files has none.
        let parts = match (&self.pixels, &now.pixels) {
            (Some(found), Some(expected)) => Some(("content", found, expected)),
            _ => {
                self.files.as_ref().zip(now.files.as_ref()).map(|(found, expected)| ("list of files", found, expected))
            }
        };
        match parts {
            Some((part, found, expected)) if found != expected => {
                differs(format!("the {part} of {what}'s images"), short(found), short(expected))
            }
            Some(_) => Ok(()),
            None => differs(format!("the source of {what}'s images"), "other than files".into(), "files".into()),
        }
    }
}

/// The SHA-256 of a file's name and length.
fn file_digest(path: &Path) -> [u8; 32] {
    let mut hash = Sha256::new();
    let length = std::fs::metadata(path).map_or(0, |found| found.len());
    hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
    hash.update(length.to_le_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::one_class_names;

    fn of(pixels: Vec<u8>, labels: &[usize], classes: usize) -> Fingerprint {
        let data =
            Dataset::new("x", Shape::new(1, 1, 2), Pixels::U8(pixels), labels.to_vec(), one_class_names(classes));
        Fingerprint::of(&data.unwrap())
    }

    #[test]
    fn every_difference_is_named() {
        let one = of(vec![1, 2, 3, 4, 5, 6], &[0, 1, 1], 2);
        one.check(&one.clone(), "the training set").unwrap();
        for (other, parts) in [
            (of(vec![1, 2, 3, 4, 5, 7], &[0, 1, 1], 2), ["content of the training set's images", "SHA-256"]),
            (of(vec![1, 2, 3, 4, 5, 6], &[1, 1, 0], 2), ["order of the training set's labels", "SHA-256"]),
            (of(vec![1, 2, 3, 4, 5, 6], &[0, 0, 1], 2), ["images of class \"0\"", "was 1 and is 2"]),
            (of(vec![1, 2, 3, 4], &[0, 1], 2), ["images of class \"1\"", "was 2 and is 1"]),
            (of(vec![1, 2, 3, 4, 5, 6], &[0, 1, 1], 3), ["number of the training set's classes", "was 2 and is 3"]),
        ] {
            assert_ne!(other.sha256(), one.sha256());
            let error = one.check(&other, "the training set").unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            assert!(error.contains("the data changed since the run began"), "{error}");
        }
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Fingerprint>(&text).unwrap(), one);
    }

    #[test]
    fn files_are_compared_by_name_where_there_are_no_pixels() {
        let one = Fingerprint { files: Some("a".into()), ..of(vec![1, 2], &[0], 1) };
        let streamed = |files: &str| Fingerprint { pixels: None, files: Some(files.into()), ..one.clone() };
        one.check(&streamed("a"), "the test set").unwrap();
        streamed("a").check(&one, "the test set").unwrap();
        let error = one.check(&streamed("b"), "the test set").unwrap_err().to_string();
        assert!(error.contains("the list of files of the test set's images was that of SHA-256 a and"), "{error}");
        let error = streamed("a").check(&Fingerprint { files: None, ..one.clone() }, "it").unwrap_err().to_string();
        assert!(error.contains("the source of it's images"), "{error}");
    }
}
