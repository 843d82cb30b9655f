//! NumPy's archive of named arrays: a ZIP file of `.npy` files.
//!
//! [`to_npz`] writes all that is in a model file: the parameters under their names, the test vectors under theirs, and the
//! metadata as the text `striate.metadata` (JSON). `numpy.load` reads it, and so does [`read_npz`], which makes the model
//! again; of an archive without the metadata it gives the arrays.
//!
//! Reading trusts nothing: an array is as long as its head says or an error, and all arrays together may be only so many
//! times longer than the archive, whatever they were pressed to.

use super::ModelFile;
use super::arrays::NamedArray;
use super::container::{Container, ContainerWriter, shorten, unwritable};
use super::error::FormatError;
use super::pickle::{Number, source};
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// The name of the text with the metadata.
pub const METADATA: &str = "striate.metadata";
const MAGIC: &[u8] = b"\x93NUMPY";
/// The longest head of an array; NumPy's own limit.
const MAX_HEAD: usize = 10_000;
const MAX_ARRAYS: usize = 16_384;
const MAX_AXES: usize = 8;
/// More ends of an archive than numbers look like by chance. Until one proves true, the whole directory may be read for each.
const MOST_ENDS: usize = 16;
/// All arrays together may be this long, and [`MOST_PRESSED`] times the archive's length besides.
const ALWAYS: u64 = 64 << 20;
const MOST_PRESSED: u64 = 20;

/// Why an archive is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpzError {
    /// Not a ZIP archive, or a damaged one.
    #[error("{name} is no NumPy archive that can be read: {reason}; copy or download it again")]
    Archive {
        /// The file.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An array that can't be read.
    #[error("{name}, array {array:?}: {reason}")]
    Array {
        /// The file.
        name: String,
        /// The array.
        array: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Memory can't be had.
    #[error("{bytes} bytes of memory for the array {array:?} of {name} could not be had")]
    OutOfMemory {
        /// The file.
        name: String,
        /// The array.
        array: String,
        /// How much.
        bytes: u64,
    },
    /// The arrays and the metadata make no model.
    #[error(transparent)]
    Model(#[from] FormatError),
}

/// What an archive held.
#[derive(Clone, Debug)]
pub enum NpzContents {
    /// A model: there was metadata.
    Model(Box<ModelFile>),
    /// Arrays without a word of what they are.
    Arrays(Vec<NamedArray>),
}

/// The bytes of an `.npz` file with everything that is in the model's own file.
///
/// ```
/// use striate::data::preprocessing::{Fit, Normalization, Preprocessing};
/// use striate::formats::{ModelFile, NpzContents, TestVectors, read_npz, to_npz};
/// use striate::{models, network::Network, shape::Shape};
///
/// let input = Shape::new(1, 12, 12);
/// let model = ModelFile {
///     network: Network::new(models::by_name("simple-convnet", input, 3)?, 1)?,
///     class_names: vec!["cat".into(), "dog".into(), "owl".into()],
///     preprocessing: Preprocessing::new(input, Fit::Stretch, Normalization::identity())?,
///     training: Default::default(),
///     metrics: Default::default(),
///     test_vectors: TestVectors::none(),
///     temperature: None,
///     quantized: None,
/// };
/// let archive = to_npz(&model)?;
/// // A ZIP archive: it begins with its maker's initials.
/// assert_eq!(&archive[..2], b"PK");
/// let NpzContents::Model(read) = read_npz(&archive, "model.npz")? else { unreachable!() };
/// assert_eq!(read.network.parameters(), model.network.parameters());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As for [`ModelFile::to_bytes`], and [`FormatError::Unwritable`] if the archive's own limits are reached.
pub fn to_npz(model: &ModelFile) -> Result<Vec<u8>, FormatError> {
    if model.quantized.is_some() {
        return Err(unwritable(
            "a network in bytes (int8)",
            "an archive holds float models; give .onnx, or the float model",
        ));
    }
    let bytes = model.to_bytes()?;
    let container = Container::from_bytes(&bytes, "the model")?;
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let mut add = |array: &str, kind: &str, shape: &[usize], values: &[u8]| {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(values.len() as u64 >= u64::from(u32::MAX));
        archive
            .start_file(format!("{array}.npy"), options)
            .map_err(|error| error.to_string())
            .and_then(|()| archive.write_all(&head(kind, shape)).map_err(|error| error.to_string()))
            .and_then(|()| archive.write_all(values).map_err(|error| error.to_string()))
            .map_err(|reason| unwritable(format!("the array {array:?}"), reason))
    };
    for tensor in container.names() {
        match container.shape(tensor) {
            Ok(shape) => {
                // As they stand in the file: little-endian.
                add(tensor, "<f4", shape, container.stored(tensor))?;
            }
            Err(_) => {
                let (shape, values) = container.bytes(tensor)?;
                add(tensor, "|u1", shape, values)?;
            }
        }
    }
    let fields: BTreeMap<&str, &str> = container.fields().collect();
    let text = serde_json::to_string(&fields).map_err(|error| unwritable("the metadata", error.to_string()))?;
    // NumPy's texts are of 32 bits a letter.
    let letters: Vec<u8> = text.chars().flat_map(|letter| u32::from(letter).to_le_bytes()).collect();
    add(METADATA, &format!("<U{}", letters.len() / 4), &[], &letters)?;
    Ok(archive.finish().map_err(|error| unwritable("the archive", error.to_string()))?.into_inner())
}

/// What stands before an array's values.
fn head(kind: &str, shape: &[usize]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let sizes = if shape.len() == 1 { sizes.trim_end() } else { sizes.trim_end_matches(", ") };
    let mut text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // The values begin where 64 divides their place.
    let before = MAGIC.len() + 4;
    let padding = 63 - (before + text.len()) % 64;
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let mut head = [MAGIC, &[1, 0], &(text.len() as u16).to_le_bytes()].concat();
    head.extend_from_slice(text.as_bytes());
    head
}

/// What an `.npz` file holds: a model, or arrays of `f4`, `f8` or `u1`; `name` is for messages.
///
/// # Errors
/// See [`NpzError`]. A refusal takes little time and memory whatever the file claims.
pub fn read_npz(bytes: &[u8], name: &str) -> Result<NpzContents, NpzError> {
    let fault = |reason: String| NpzError::Archive { name: name.into(), reason: shorten(&reason) };
    // In their short and their long form.
    let ends = bytes.windows(4).filter(|window| matches!(window, [b'P', b'K', 5 | 6, 6]));
    if ends.take(MOST_ENDS + 1).count() > MOST_ENDS {
        return Err(fault(format!("it ends in more than {MOST_ENDS} places")));
    }
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| fault(error.to_string()))?;
    if archive.len() > MAX_ARRAYS {
        return Err(fault(format!("it has {} entries; at most {MAX_ARRAYS} are allowed", archive.len())));
    }
    let mut left = ALWAYS.saturating_add((bytes.len() as u64).saturating_mul(MOST_PRESSED));
    let (mut numbers, mut pictures, mut metadata) = (Vec::new(), Vec::new(), None);
    for at in 0..archive.len() {
        let entry = archive.by_index(at).map_err(|error| fault(error.to_string()))?;
        let Some(array) = entry.name().strip_suffix(".npy").map(str::to_owned) else {
            let entry = shorten(entry.name());
            return Err(fault(format!("its entry {entry:?} is no array: the names of arrays end in .npy")));
        };
        let length = entry.size();
        let npy = Npy { archive: name, array: &array, rest: entry };
        match npy.read(length, &mut left)? {
            Values::Numbers(shape, values) => numbers.push(NamedArray { name: array, shape, values }),
            Values::Bytes(shape, values) => pictures.push((array, shape, values)),
            Values::Text(text) if array == METADATA => metadata = Some(text),
            Values::Text(_) => {
                let reason = "it is a text; expected numbers".into();
                return Err(NpzError::Array { name: name.into(), array: shorten(&array), reason });
            }
        }
    }
    let Some(metadata) = metadata else {
        numbers.extend(pictures.into_iter().map(|(name, shape, values)| NamedArray {
            name,
            shape,
            values: values.into_iter().map(f32::from).collect(),
        }));
        return Ok(NpzContents::Arrays(numbers));
    };
    let fields: BTreeMap<String, String> = serde_json::from_str(&metadata).map_err(|error| NpzError::Array {
        name: name.into(),
        array: METADATA.into(),
        reason: shorten(&error.to_string()),
    })?;
    // The model file's own reader judges the parts.
    let mut writer = ContainerWriter::new();
    for (key, value) in fields {
        writer.field(key, value)?;
    }
    for array in &numbers {
        writer.tensor(&array.name, &array.shape, &array.values)?;
    }
    for (array, shape, values) in &pictures {
        writer.bytes(array, shape, values)?;
    }
    Ok(NpzContents::Model(Box::new(ModelFile::from_bytes(&writer.to_bytes()?, name)?)))
}

/// What an array holds.
enum Values {
    Numbers(Vec<usize>, Vec<f32>),
    Bytes(Vec<usize>, Vec<u8>),
    Text(String),
}

/// One array of an archive.
struct Npy<'a, R> {
    archive: &'a str,
    array: &'a str,
    rest: R,
}

impl<R: Read> Npy<'_, R> {
    fn fault(&self, reason: impl Into<String>) -> NpzError {
        NpzError::Array { name: self.archive.into(), array: shorten(self.array), reason: shorten(&reason.into()) }
    }

    fn exactly(&mut self, count: usize) -> Result<Vec<u8>, NpzError> {
        let mut taken = Vec::new();
        taken.try_reserve_exact(count).map_err(|_| NpzError::OutOfMemory {
            name: self.archive.into(),
            array: shorten(self.array),
            bytes: count as u64,
        })?;
        let read = (&mut self.rest).take(count as u64).read_to_end(&mut taken);
        match read {
            Ok(read) if read == count => Ok(taken),
            Ok(read) => Err(self.fault(format!("it ends early: {read} bytes where {count} should be"))),
            Err(error) => Err(self.fault(error.to_string())),
        }
    }

    /// The values of an array whose file is `length` bytes long; `left` is what all arrays may still take.
    fn read(mut self, length: u64, left: &mut u64) -> Result<Values, NpzError> {
        let start = self.exactly(MAGIC.len() + 2)?;
        let version = match start.strip_prefix(MAGIC) {
            Some([version, _]) => *version,
            _ => return Err(self.fault("it does not begin as an array of NumPy's")),
        };
        let counted = match version {
            1 => 2,
            2 | 3 => 4,
            version => return Err(self.fault(format!("version {version} of the format; 1 to 3 are read"))),
        };
        let digits = self.exactly(counted)?;
        let head = digits.iter().rev().fold(0usize, |count, &byte| count << 8 | usize::from(byte));
        if head > MAX_HEAD {
            return Err(self.fault(format!("its head has {head} bytes; at most {MAX_HEAD} are allowed")));
        }
        let text = self.exactly(head)?;
        let Some(Head { kind, fortran, shape }) = Head::parse(&text) else {
            return Err(self.fault(format!("its head is not understood: {}", String::from_utf8_lossy(&text))));
        };
        if shape.len() > MAX_AXES {
            return Err(self.fault(format!("it has {} axes; at most {MAX_AXES} are allowed", shape.len())));
        }
        let kind = Kind::parse(&kind)
            .ok_or_else(|| self.fault(format!("its numbers are of the type {kind:?}; f4, f8 and u1 are read")))?;
        let needed = shape.iter().try_fold(kind.width(), |product, &size| product.checked_mul(size));
        let there = length.saturating_sub((start.len() + counted + head) as u64);
        let needed = needed.filter(|&needed| needed as u64 == there).ok_or_else(|| {
            self.fault(format!(
                "its shape is {shape:?} with {} bytes a number, and it holds {there} bytes",
                kind.width()
            ))
        })?;
        *left = left.checked_sub(there).ok_or_else(|| {
            self.fault(format!(
                "the arrays up to this one are more than {MOST_PRESSED} times as long as the archive (and {} MiB)",
                ALWAYS >> 20
            ))
        })?;
        let bytes = self.exactly(needed)?;
        // At the end the archive's checksum of the entry is looked at.
        if let Err(error) = self.rest.read(&mut [0]) {
            return Err(self.fault(error.to_string()));
        }
        let count = needed / kind.width().max(1);
        let place = |at| source(at, &shape, fortran);
        match kind {
            Kind::Number(number) => {
                let mut values = Vec::new();
                values.try_reserve_exact(count).map_err(|_| NpzError::OutOfMemory {
                    name: self.archive.into(),
                    array: shorten(self.array),
                    bytes: (count as u64).saturating_mul(4),
                })?;
                values.extend((0..count).map(|at| number.read(&bytes, place(at))));
                Ok(Values::Numbers(shape, values))
            }
            Kind::Byte if fortran => {
                let values = (0..count).map(|at| bytes.get(place(at)).copied().unwrap_or_default()).collect();
                Ok(Values::Bytes(shape, values))
            }
            Kind::Byte => Ok(Values::Bytes(shape, bytes)),
            Kind::Text { .. } if shape.is_empty() => {
                let (letters, _) = bytes.as_chunks::<4>();
                let letters = letters.iter().map(|letter| char::from_u32(u32::from_le_bytes(*letter)));
                let text: Option<String> = letters.collect();
                // NumPy fills texts up with zeros.
                let text = text.ok_or_else(|| self.fault("it is no text"))?;
                Ok(Values::Text(text.trim_end_matches('\0').into()))
            }
            Kind::Text { .. } => Err(self.fault("it holds several texts; expected numbers")),
        }
    }
}

/// What a value is.
#[derive(Clone, Copy)]
enum Kind {
    Number(Number),
    Byte,
    Text { letters: usize },
}

impl Kind {
    /// From NumPy's short name.
    fn parse(kind: &str) -> Option<Self> {
        let (order, code) = match kind.as_bytes().first()? {
            order @ (b'<' | b'>' | b'|' | b'=') => (*order, kind.get(1..)?),
            _ => (b'=', kind),
        };
        let big_endian = order == b'>';
        match code {
            "f4" => Some(Kind::Number(Number { width: 4, big_endian })),
            "f8" => Some(Kind::Number(Number { width: 8, big_endian })),
            "u1" => Some(Kind::Byte),
            code if !big_endian => Some(Kind::Text { letters: code.strip_prefix('U')?.parse().ok()? }),
            _ => None,
        }
    }

    fn width(self) -> usize {
        match self {
            Kind::Number(number) => number.width,
            Kind::Byte => 1,
            Kind::Text { letters } => letters.saturating_mul(4),
        }
    }
}

/// The head of an array: a dictionary as Python writes it, with three keys.
#[derive(Debug, PartialEq)]
struct Head {
    kind: String,
    fortran: bool,
    shape: Vec<usize>,
}

impl Head {
    fn parse(text: &[u8]) -> Option<Self> {
        let (mut kind, mut fortran, mut shape) = (None, None, None);
        let mut rest = std::str::from_utf8(text).ok()?.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            rest = after.trim_start().strip_prefix(':')?.trim_start();
            match key {
                "descr" => {
                    let (value, after) = quoted(rest)?;
                    (kind, rest) = (Some(value.to_owned()), after);
                }
                "fortran_order" => {
                    let (value, after) = rest.split_at(rest.find([',', ' ']).unwrap_or(rest.len()));
                    fortran = Some(match value {
                        "True" => true,
                        "False" => false,
                        _ => return None,
                    });
                    rest = after;
                }
                "shape" => {
                    let (sizes, after) = rest.strip_prefix('(')?.split_once(')')?;
                    let sizes = sizes.trim().trim_end_matches(',');
                    // Python 2 wrote 3L.
                    let size = |size: &str| size.trim().trim_end_matches('L').parse().ok();
                    let sizes: Option<Vec<usize>> =
                        if sizes.is_empty() { Some(Vec::new()) } else { sizes.split(',').map(size).collect() };
                    (shape, rest) = (Some(sizes?), after);
                }
                _ => return None,
            }
            rest = rest.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
        }
        Some(Self { kind: kind?, fortran: fortran?, shape: shape? })
    }
}

/// The text between quotes at the start, and what comes after.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|quote| ['\'', '"'].contains(quote))?;
    text.get(1..)?.split_once(quote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_numpys() {
        let text = head("<f4", &[30, 1, 5, 5]);
        assert!(text.len().is_multiple_of(64) && text.ends_with(b"\n"));
        for (shape, sizes) in [(&[][..], "()"), (&[3], "(3,)"), (&[3, 4], "(3, 4)")] {
            let text = head("<f8", shape);
            assert!(String::from_utf8_lossy(&text).contains(&format!("'shape': {sizes}, }}")), "{shape:?}");
            let parsed = Head::parse(&text[10..]).unwrap();
            assert_eq!(parsed, Head { kind: "<f8".into(), fortran: false, shape: shape.into() });
        }
        // As Python 2 wrote it.
        let old = b"{'shape': (3L, 4L), 'descr': '>f4', 'fortran_order': True} \n";
        assert_eq!(Head::parse(old).unwrap(), Head { kind: ">f4".into(), fortran: true, shape: vec![3, 4] });
        for wrong in [
            "",
            "{}",
            "{'descr': '<f4'}",
            "{'shape': (3,",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}",
            "{'descr': '<f4', 'fortran_order': Maybe, 'shape': ()}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (-1,)}",
        ] {
            assert_eq!(Head::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
