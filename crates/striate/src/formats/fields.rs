//! What model files and checkpoints keep as text in their containers: JSON, bounded when written and when read.

use super::container::{Container, shorten, unwritable};
use super::error::FormatError;
use crate::network::Description;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The metadata key of the architecture.
pub(crate) const ARCHITECTURE: &str = "striate.architecture";
/// The longest text of a field that holds something known.
pub(crate) const MOST_BYTES: usize = 4 << 20;
/// The longest text of one that holds any JSON, which takes up to a hundred times its length in memory.
pub(crate) const MOST_FREE_BYTES: usize = 1 << 20;

/// JSON text that is known to be readable as a `T` again: not so for NaN, or for lists nested without end.
pub(crate) fn to_text<T: DeserializeOwned>(
    key: &'static str,
    value: &impl Serialize,
    most: usize,
) -> Result<String, FormatError> {
    let refused = |reason: String| unwritable(format!("the field {key}"), reason);
    let text = serde_json::to_string(value).map_err(|error| refused(error.to_string()))?;
    if text.len() > most {
        return Err(refused(too_long(&text, most)));
    }
    match serde_json::from_str::<T>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(refused(format!("it could not be read again: {error}"))),
    }
}

fn too_long(text: &str, most: usize) -> String {
    format!("it is {} bytes long; at most {most} are allowed", text.len())
}

impl Container<'_> {
    /// A field that can't be understood.
    pub(crate) fn bad_field(&self, key: &'static str, reason: impl Into<String>) -> FormatError {
        FormatError::Field { name: self.name().into(), key, reason: shorten(&reason.into()) }
    }

    /// What the JSON of a field stands for.
    pub(crate) fn json<T: DeserializeOwned>(&self, key: &'static str, most: usize) -> Result<T, FormatError> {
        let text = self.field(key).ok_or_else(|| self.bad_field(key, "it is missing"))?;
        if text.len() > most {
            return Err(self.bad_field(key, too_long(text, most)));
        }
        serde_json::from_str(text).map_err(|error| self.bad_field(key, error.to_string()))
    }

    /// The network without its weights.
    pub(crate) fn architecture(&self) -> Result<Description, FormatError> {
        self.json(ARCHITECTURE, MOST_BYTES)
    }

    /// A copy of values of the file.
    pub(crate) fn owned<T: Copy>(&self, values: &[T]) -> Result<Vec<T>, FormatError> {
        let mut owned = self.room(values.len())?;
        owned.extend_from_slice(values);
        Ok(owned)
    }

    /// The numbers of a tensor; the file has been found to hold so many.
    pub(crate) fn numbers(&self, tensor: &str) -> Result<Vec<f32>, FormatError> {
        let count = self.shape(tensor)?.iter().product();
        let mut values = self.room(count)?;
        values.resize(count, 0.0);
        self.read(tensor, &mut values)?;
        Ok(values)
    }

    fn room<T>(&self, count: usize) -> Result<Vec<T>, FormatError> {
        let mut values = Vec::new();
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
        values.try_reserve_exact(count).map_err(|_| FormatError::OutOfMemory { name: self.name().into(), bytes })?;
        Ok(values)
    }
}
