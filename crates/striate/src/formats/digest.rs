//! SHA-256 of weights: one short name for exactly these numbers.

use crate::network::Parameters;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// The SHA-256, in lower-case hex, of all parameters as raw little-endian f32, one array after the other in the
/// (byte-wise) order of their names.
///
/// Two runs gave the same network exactly when this agrees. Names and shapes are not part of it.
///
/// ```
/// use striate::formats::weights_sha256;
/// use striate::network::Parameters;
///
/// let mut one = Parameters::zeros(vec![("W1".into(), vec![2, 3]), ("b1".into(), vec![3])])?;
/// let same = one.clone();
/// assert_eq!(weights_sha256(&one), weights_sha256(&same));
/// one.as_mut_slice()[0] = -0.0;
/// assert_ne!(weights_sha256(&one), weights_sha256(&same));
/// # Ok::<(), striate::network::NetworkError>(())
/// ```
pub fn weights_sha256(parameters: &Parameters) -> String {
    let mut specs: Vec<_> = parameters.specs().iter().collect();
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hash = Sha256::new();
    for spec in specs {
        if let Some(values) = parameters.as_slice().get(spec.range.clone()) {
            hash.update(little_endian(values));
        }
    }
    hex(&hash.finalize())
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect()
}

/// The bytes of `values` in little-endian order; a copy only on big-endian machines.
pub(crate) fn little_endian(values: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        Cow::Borrowed(bytemuck::cast_slice(values))
    } else {
        Cow::Owned(values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // FIPS 180-4's digest of nothing.
        let none = Parameters::zeros(vec![]).unwrap();
        assert_eq!(weights_sha256(&none), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        // 0x61, 0x62, 0x63, 0x64 is "abcd".
        let mut abcd = Parameters::zeros(vec![("W1".into(), vec![1])]).unwrap();
        abcd.as_mut_slice()[0] = f32::from_le_bytes(*b"abcd");
        assert_eq!(weights_sha256(&abcd), "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589");
    }

    #[test]
    fn the_order_is_that_of_the_names() {
        let mut layer_order = Parameters::zeros(vec![("W1".into(), vec![2]), ("A".into(), vec![1])]).unwrap();
        layer_order.as_mut_slice().copy_from_slice(&[1.0, 2.0, 3.0]);
        let mut name_order = Parameters::zeros(vec![("A".into(), vec![1]), ("W1".into(), vec![2])]).unwrap();
        name_order.as_mut_slice().copy_from_slice(&[3.0, 1.0, 2.0]);
        assert_eq!(weights_sha256(&layer_order), weights_sha256(&name_order));
    }
}
