//! NumPy's archive of named arrays, for `numpy.load`.

use super::FormatError;
use super::container::unwritable;
use crate::network::Parameters;
use ndarray_npy::NpzWriter;
use std::io::Cursor;

/// The bytes of an `.npz` file with every parameter under its name, as 32-bit floats in row-major order.
///
/// ```
/// use striate::formats::to_npz;
/// use striate::network::Parameters;
/// let parameters = Parameters::zeros(vec![("W1".into(), vec![30, 1, 5, 5]), ("b1".into(), vec![30])])?;
/// // A ZIP archive: it begins with its maker's initials.
/// assert_eq!(&to_npz(&parameters)?[..2], b"PK");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`FormatError::Unwritable`] if the archive's own limits are reached.
pub fn to_npz(parameters: &Parameters) -> Result<Vec<u8>, FormatError> {
    let mut bytes = Cursor::new(Vec::new());
    let mut archive = NpzWriter::new(&mut bytes);
    for (name, values) in parameters.iter() {
        archive
            .add_array(name, &values)
            .map_err(|error| unwritable(format!("the parameter {name:?}"), error.to_string()))?;
    }
    archive.finish().map_err(|error| unwritable("the archive", error.to_string()))?;
    Ok(bytes.into_inner())
}
