//! A safetensors file with a checksum over every byte of it.
//!
//! The checksum is the SHA-256 of the whole file with the checksum's own 64 digits replaced by zeros; it lies in the
//! metadata under [`CHECKSUM`], written exactly as `"striate.checksum":"0123..."`. So any flipped bit or cut anywhere
//! (names, shapes, even the spaces that pad the header) is found before a single number is used. This rule holds for
//! every version of what is inside, so an old program can tell a damaged file from a new one.
//!
//! Reading trusts nothing: the header is bounded before memory is taken for it, is parsed without building a tree, and
//! must describe the file's length to the byte before the rest is read at all.

use super::digest::{hex, little_endian};
use super::error::FormatError;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

/// The metadata key of the checksum.
pub const CHECKSUM: &str = "striate.checksum";
/// The longest header that is read or written: 16 MiB.
pub const MAX_HEADER_BYTES: usize = 16 << 20;
/// The longest file that is read: 8 GiB.
pub const MAX_FILE_BYTES: u64 = 8 << 30;

/// Everything of ours in the metadata starts with this.
const PREFIX: &str = "striate.";
const METADATA: &str = "__metadata__";
/// Bytes of the header's length, at the file's start.
const LENGTH_BYTES: usize = 8;
const DIGITS: usize = 64;
const ZEROS: [u8; DIGITS] = [b'0'; DIGITS];
const MAX_TENSORS: usize = 16_384;
const MAX_FIELDS: usize = 1_024;
const MAX_AXES: usize = 8;
/// A file beyond this is checked piece by piece before memory is taken for all of it.
const CHECK_FIRST_BYTES: u64 = 256 << 20;

/// Collects named arrays and text fields, and turns them into bytes. The same contents always give the same bytes.
///
/// ```
/// use striate::formats::{Container, ContainerWriter};
///
/// let mut writer = ContainerWriter::new();
/// writer.field("step", "42")?;
/// writer.tensor("W1", &[1, 2], &[0.5, -0.0])?;
/// let bytes = writer.to_bytes()?;
///
/// let container = Container::from_bytes(&bytes, "the example")?;
/// assert_eq!(container.field("step"), Some("42"));
/// let mut values = [0.0; 2];
/// container.read("W1", &mut values)?;
/// assert_eq!(values[0], 0.5);
/// assert!(values[1].is_sign_negative());
///
/// let mut damaged = bytes.clone();
/// damaged[bytes.len() - 1] ^= 1;
/// let error = Container::from_bytes(&damaged, "the example").unwrap_err();
/// assert!(error.to_string().contains("the example is damaged"));
/// # Ok::<(), striate::formats::FormatError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ContainerWriter<'a> {
    fields: BTreeMap<String, String>,
    tensors: BTreeMap<String, (Vec<usize>, Values<'a>)>,
}

/// What a tensor holds, in row-major order.
#[derive(Clone, Copy, Debug)]
enum Values<'a> {
    F32(&'a [f32]),
    I32(&'a [i32]),
    U8(&'a [u8]),
    I8(&'a [i8]),
}

impl<'a> Values<'a> {
    fn len(self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::I32(values) => values.len(),
            Values::U8(values) => values.len(),
            Values::I8(values) => values.len(),
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            Values::F32(_) => Dtype::F32,
            Values::I32(_) => Dtype::I32,
            Values::U8(_) => Dtype::U8,
            Values::I8(_) => Dtype::I8,
        }
    }

    /// As they stand in the file.
    fn bytes(self) -> Cow<'a, [u8]> {
        match self {
            Values::F32(values) => little_endian(values),
            Values::I32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Values::U8(values) => Cow::Borrowed(values),
            Values::I8(values) => Cow::Borrowed(bytemuck::cast_slice(values)),
        }
    }
}

impl<'a> ContainerWriter<'a> {
    /// Without contents yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text field.
    ///
    /// # Errors
    /// A second one of the name, or the name of the checksum.
    pub fn field(&mut self, key: impl Into<String>, value: impl Into<String>) -> Result<(), FormatError> {
        let key = key.into();
        if key == CHECKSUM || self.fields.contains_key(&key) {
            return Err(unwritable(format!("the field {key:?}"), "its name is taken"));
        }
        self.fields.insert(key, value.into());
        Ok(())
    }

    /// Adds an array in row-major order.
    ///
    /// # Errors
    /// A second one of the name, a name that safetensors reserves, more than 8 axes, or a number of values that is not
    /// the product of the shape.
    pub fn tensor(&mut self, name: impl Into<String>, shape: &[usize], values: &'a [f32]) -> Result<(), FormatError> {
        self.add(name.into(), shape, Values::F32(values))
    }

    /// Adds an array of bytes in row-major order.
    ///
    /// # Errors
    /// As for [`ContainerWriter::tensor`].
    pub fn bytes(&mut self, name: impl Into<String>, shape: &[usize], values: &'a [u8]) -> Result<(), FormatError> {
        self.add(name.into(), shape, Values::U8(values))
    }

    /// Adds an array of signed bytes in row-major order.
    ///
    /// # Errors
    /// As for [`ContainerWriter::tensor`].
    pub fn signed(&mut self, name: impl Into<String>, shape: &[usize], values: &'a [i8]) -> Result<(), FormatError> {
        self.add(name.into(), shape, Values::I8(values))
    }

    /// Adds an array of whole numbers in row-major order.
    ///
    /// # Errors
    /// As for [`ContainerWriter::tensor`].
    pub fn integers(&mut self, name: impl Into<String>, shape: &[usize], values: &'a [i32]) -> Result<(), FormatError> {
        self.add(name.into(), shape, Values::I32(values))
    }

    fn add(&mut self, name: String, shape: &[usize], values: Values<'a>) -> Result<(), FormatError> {
        let what = format!("the tensor {name:?}");
        if name == METADATA || self.tensors.contains_key(&name) {
            return Err(unwritable(what, "its name is taken"));
        }
        if shape.len() > MAX_AXES {
            return Err(unwritable(what, format!("it has {} axes, more than {MAX_AXES}", shape.len())));
        }
        if element_count(shape) != Some(values.len()) {
            return Err(unwritable(what, format!("its shape is {shape:?} and it has {} values", values.len())));
        }
        self.tensors.insert(name, (shape.to_vec(), values));
        Ok(())
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// More tensors, fields or header bytes than a reader accepts, or no memory for the bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        let the_file = || "the file".to_string();
        // One field is the checksum.
        if self.tensors.len() > MAX_TENSORS || self.fields.len() >= MAX_FIELDS {
            let reason = format!("at most {MAX_TENSORS} tensors and {} fields are allowed", MAX_FIELDS - 1);
            return Err(unwritable(the_file(), reason));
        }
        let mut fields: BTreeMap<&str, &str> = self.fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let zeros = "0".repeat(DIGITS);
        fields.insert(CHECKSUM, &zeros);

        let mut end = 0usize;
        let mut tensors = Vec::with_capacity(self.tensors.len());
        // Bytes come last, so that every number lies where its width divides its place.
        let mut in_order: Vec<_> = self.tensors.iter().collect();
        in_order.sort_by_key(|(_, (_, values))| values.dtype().bitsize() == 8);
        for (name, (shape, values)) in &in_order {
            let start = end;
            end = (values.dtype().bitsize() / 8)
                .checked_mul(values.len())
                .and_then(|bytes| bytes.checked_add(start))
                .ok_or_else(|| unwritable(the_file(), "its tensors are larger than any memory"))?;
            let info = TensorInfo { dtype: values.dtype(), shape: shape.clone(), data_offsets: (start, end) };
            tensors.push((name.as_str(), info));
        }

        // Not safetensors' own serialisation, because that puts the fields in a random order.
        let mut header = serde_json::to_vec(&OrderedHeader { fields: &fields, tensors: &tensors })
            .map_err(|error| unwritable(the_file(), error.to_string()))?;
        header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');
        if header.len() > MAX_HEADER_BYTES {
            let reason = format!(
                "its names, shapes and fields take {} bytes; at most {MAX_HEADER_BYTES} are allowed",
                header.len()
            );
            return Err(unwritable(the_file(), reason));
        }

        let length = LENGTH_BYTES.saturating_add(header.len()).saturating_add(end);
        if length as u64 > MAX_FILE_BYTES {
            return Err(FormatError::TooLarge { name: the_file(), bytes: length as u64, limit: MAX_FILE_BYTES });
        }
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(length)
            .map_err(|_| FormatError::OutOfMemory { name: the_file(), bytes: length as u64 })?;
        bytes.extend_from_slice(&(header.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&header);
        for (_, (_, values)) in &in_order {
            bytes.extend_from_slice(&values.bytes());
        }

        // The digits are zeros now, as the rule wants them.
        let digits = hex(&Sha256::digest(&bytes));
        place_of_checksum(&bytes, &zeros)
            .and_then(|at| bytes.get_mut(at..at + DIGITS))
            .ok_or_else(|| unwritable(the_file(), "its checksum has no place"))?
            .copy_from_slice(digits.as_bytes());
        Ok(bytes)
    }
}

/// A file's named arrays and text fields, checked against the file's checksum.
#[derive(Clone, Debug)]
pub struct Container<'a> {
    name: String,
    fields: BTreeMap<String, String>,
    tensors: BTreeMap<String, TensorInfo>,
    data: &'a [u8],
}

impl<'a> Container<'a> {
    /// Checks the bytes of a file, and finds its parts. `name` is for messages.
    ///
    /// # Errors
    /// Anything that is not, to the bit, what [`ContainerWriter::to_bytes`] gave: see [`FormatError`].
    pub fn from_bytes(bytes: &'a [u8], name: &str) -> Result<Self, FormatError> {
        let length = bytes.len() as u64;
        let header_bytes = header_bytes(bytes, length, name)?;
        let (prefix, data) = bytes
            .split_at_checked(LENGTH_BYTES + header_bytes)
            .ok_or_else(|| truncated(name, length, (LENGTH_BYTES + header_bytes) as u64))?;
        let header = Header::parse(prefix, length, name)?;
        let mut hash = header.hash_of(prefix);
        hash.update(data);
        header.check(hash, name)?;
        Ok(Self { name: name.to_string(), fields: header.fields, tensors: header.tensors, data })
    }

    /// What the file is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The text of a field.
    pub fn field(&self, key: &str) -> Option<&str> {
        self.fields.get(key).map(String::as_str)
    }

    /// Every text field but the checksum, with its key.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().filter(|(key, _)| *key != CHECKSUM).map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The bytes of a tensor as they stand in the file: little-endian, in row-major order. None if there is no such tensor.
    pub(super) fn stored(&self, tensor: &str) -> &'a [u8] {
        let place = self.tensors.get(tensor).map(|info| info.data_offsets);
        place.and_then(|(start, end)| self.data.get(start..end)).unwrap_or_default()
    }

    /// The names of the tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// No tensor of that name, or one of another type than F32.
    pub fn shape(&self, tensor: &str) -> Result<&[usize], FormatError> {
        Ok(&self.tensor(tensor, Dtype::F32)?.shape)
    }

    /// The shape and the values of a tensor of bytes, in row-major order.
    ///
    /// # Errors
    /// No tensor of that name, or one of another type than U8.
    pub fn bytes(&self, tensor: &str) -> Result<(&[usize], &'a [u8]), FormatError> {
        let info = self.tensor(tensor, Dtype::U8)?;
        let (start, end) = info.data_offsets;
        Ok((&info.shape, self.data.get(start..end).unwrap_or_default()))
    }

    /// The shape and the values of a tensor of signed bytes, in row-major order.
    ///
    /// # Errors
    /// No tensor of that name, or one of another type than I8.
    pub fn signed(&self, tensor: &str) -> Result<(&[usize], &'a [i8]), FormatError> {
        let info = self.tensor(tensor, Dtype::I8)?;
        let (start, end) = info.data_offsets;
        Ok((&info.shape, bytemuck::cast_slice(self.data.get(start..end).unwrap_or_default())))
    }

    /// The shape and the values of a tensor of whole numbers, in row-major order.
    ///
    /// # Errors
    /// No tensor of that name, or one of another type than I32.
    pub fn integers(
        &self,
        tensor: &str,
    ) -> Result<(&[usize], impl ExactSizeIterator<Item = i32> + use<'a>), FormatError> {
        let info = self.tensor(tensor, Dtype::I32)?;
        let (start, end) = info.data_offsets;
        let (numbers, _) = self.data.get(start..end).unwrap_or_default().as_chunks::<4>();
        Ok((&info.shape, numbers.iter().map(|number| i32::from_le_bytes(*number))))
    }

    /// Whether there is a tensor of this name with whole numbers.
    pub fn is_integers(&self, tensor: &str) -> bool {
        self.tensors.get(tensor).is_some_and(|info| info.dtype == Dtype::I32)
    }

    /// Whether there is a tensor of this name with signed bytes.
    pub fn is_signed(&self, tensor: &str) -> bool {
        self.tensors.get(tensor).is_some_and(|info| info.dtype == Dtype::I8)
    }

    fn tensor(&self, tensor: &str, dtype: Dtype) -> Result<&TensorInfo, FormatError> {
        match self.tensors.get(tensor) {
            Some(info) if info.dtype == dtype => Ok(info),
            Some(info) => Err(FormatError::TensorType {
                name: self.name.clone(),
                tensor: shorten(tensor),
                found: info.dtype.to_string(),
                expected: dtype.to_string(),
            }),
            None => Err(FormatError::MissingTensor { name: self.name.clone(), tensor: shorten(tensor) }),
        }
    }

    /// Copies a tensor's values, in row-major order, to `values`, which must be of its length.
    ///
    /// # Errors
    /// No tensor of that name, one of another type than F32, or one of another length.
    pub fn read(&self, tensor: &str, values: &mut [f32]) -> Result<(), FormatError> {
        let info = self.tensor(tensor, Dtype::F32)?;
        let (start, end) = info.data_offsets;
        let bytes = self.data.get(start..end).unwrap_or_default();
        if bytes.len() != size_of_val(values) {
            return Err(FormatError::Inconsistent {
                name: self.name.clone(),
                what: "the length of a tensor",
                found: format!("{} bytes in {:?}", bytes.len(), shorten(tensor)),
                expected: format!("{} bytes", size_of_val(values)),
            });
        }
        let (numbers, _) = bytes.as_chunks::<4>();
        for (value, number) in values.iter_mut().zip(numbers) {
            *value = f32::from_le_bytes(*number);
        }
        Ok(())
    }
}

/// A tensor of anybody's: its name, what the header says of it, and its bytes.
pub(super) type Foreign<'a> = (String, TensorInfo, &'a [u8]);

/// The tensors of any safetensors file.
///
/// # Errors
/// A header that does not describe the file to the byte.
pub(super) fn foreign<'a>(bytes: &'a [u8], name: &str) -> Result<Vec<Foreign<'a>>, FormatError> {
    let length = bytes.len() as u64;
    let header_bytes = header_bytes(bytes, length, name)?;
    let (prefix, data) = bytes
        .split_at_checked(LENGTH_BYTES + header_bytes)
        .ok_or_else(|| truncated(name, length, (LENGTH_BYTES + header_bytes) as u64))?;
    let tensors = Layout::parse(prefix, length, name)?.tensors;
    let with_bytes = tensors.into_iter().map(|(tensor, info)| {
        let (start, end) = info.data_offsets;
        (tensor, info, data.get(start..end).unwrap_or_default())
    });
    Ok(with_bytes.collect())
}

/// All bytes of a container file, refused before they are read when the file is not regular or its header is not that
/// of a whole file of ours. [`Container::from_bytes`] must still check them.
///
/// # Errors
/// See [`FormatError`]. A file beyond 256 MiB is checked before memory is taken for all of it.
pub fn read_file(path: &Path) -> Result<Vec<u8>, FormatError> {
    read_checked(path, &|prefix, length, name| Header::parse(prefix, length, name).map(Some))
}

/// All bytes of a safetensors file that anybody may have written, refused before they are read when the file is not regular
/// or its header does not describe it.
///
/// # Errors
/// See [`FormatError`].
pub fn read_foreign_file(path: &Path) -> Result<Vec<u8>, FormatError> {
    read_checked(path, &|prefix, length, name| Layout::parse(prefix, length, name).map(|_| None))
}

/// All bytes of a file of another format, if it is regular and at most `limit` bytes long.
///
/// # Errors
/// See [`FormatError`].
pub fn read_regular_file(path: &Path, limit: u64) -> Result<Vec<u8>, FormatError> {
    let (mut file, length, name) = open(path, limit)?;
    let mut bytes = Vec::new();
    read_on(&mut file, &mut bytes, length, length, &name)?.map_err(|source| read_failed(path, "read", source))?;
    Ok(bytes)
}

fn read_failed(path: &Path, action: &'static str, source: io::Error) -> FormatError {
    let hint = match source.kind() {
        ErrorKind::NotFound => "; check the path",
        ErrorKind::PermissionDenied => "; you may not read it: change its permissions",
        _ => "",
    };
    FormatError::Read { path: path.to_path_buf(), action, hint, source }
}

/// A regular file with its length and its name for messages.
fn open(path: &Path, limit: u64) -> Result<(File, u64, String), FormatError> {
    let failed = |action: &'static str| move |source: io::Error| read_failed(path, action, source);
    let name = path.display().to_string();
    // Opening a FIFO would wait for ever, so look first.
    refuse_unless_file(path, &std::fs::metadata(path).map_err(failed("open"))?)?;
    let file = File::open(path).map_err(failed("open"))?;
    let found = file.metadata().map_err(failed("look at"))?;
    refuse_unless_file(path, &found)?;
    match found.len() {
        length if length <= limit => Ok((file, length, name)),
        bytes => Err(FormatError::TooLarge { name, bytes, limit }),
    }
}

/// What judges everything before the data of a file of that length; where it gives a header, a large file is checked before
/// memory is taken for all of it.
type Judge<'a> = &'a dyn Fn(&[u8], u64, &str) -> Result<Option<Header>, FormatError>;

fn read_checked(path: &Path, judge: Judge<'_>) -> Result<Vec<u8>, FormatError> {
    let failed = |action: &'static str| move |source: io::Error| read_failed(path, action, source);
    let (mut file, length, name) = open(path, MAX_FILE_BYTES)?;
    let mut bytes = Vec::new();
    read_on(&mut file, &mut bytes, length.min(LENGTH_BYTES as u64 + 1), length, &name)?.map_err(failed("read"))?;
    let prefix_bytes = (LENGTH_BYTES + header_bytes(&bytes, length, &name)?) as u64;
    read_on(&mut file, &mut bytes, prefix_bytes, length, &name)?.map_err(failed("read"))?;
    let header = judge(&bytes, length, &name)?;

    if let Some(header) = header.filter(|_| length > CHECK_FIRST_BYTES) {
        let mut hash = header.hash_of(&bytes);
        let mut piece = vec![0u8; 1 << 20];
        let mut rest = (&mut file).take(length - prefix_bytes);
        loop {
            match rest.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => hash.update(piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("read")(error)),
            }
        }
        header.check(hash, &name)?;
        file.seek(SeekFrom::Start(prefix_bytes)).map_err(failed("read"))?;
    }
    read_on(&mut file, &mut bytes, length, length, &name)?.map_err(failed("read"))?;
    Ok(bytes)
}

/// Reads on until `bytes` are `end` bytes of a file of `length` bytes.
fn read_on(
    file: &mut File,
    bytes: &mut Vec<u8>,
    end: u64,
    length: u64,
    name: &str,
) -> Result<io::Result<()>, FormatError> {
    let missing = end.saturating_sub(bytes.len() as u64);
    usize::try_from(missing)
        .ok()
        .and_then(|missing| bytes.try_reserve_exact(missing).ok())
        .ok_or_else(|| FormatError::OutOfMemory { name: name.to_string(), bytes: missing })?;
    match file.take(missing).read_to_end(bytes) {
        Err(error) => Ok(Err(error)),
        // Somebody is cutting the file while we read it.
        Ok(_) if (bytes.len() as u64) < end => Err(truncated(name, bytes.len() as u64, length)),
        Ok(_) => Ok(Ok(())),
    }
}

fn refuse_unless_file(path: &Path, found: &std::fs::Metadata) -> Result<(), FormatError> {
    let refuse = |found, hint| Err(FormatError::NotAFile { path: path.to_path_buf(), found, hint });
    if found.is_file() {
        Ok(())
    } else if found.is_dir() {
        refuse("a directory", "; give the model file inside it")
    } else {
        refuse("a pipe, socket or device", "; copy its contents to a file first")
    }
}

/// The length of the header, from the file's first bytes (all of them, or at least 9).
fn header_bytes(start: &[u8], length: u64, name: &str) -> Result<usize, FormatError> {
    let foreign = |reason: &str| FormatError::NotSafetensors { name: name.to_string(), reason: reason.to_string() };
    if start.is_empty() {
        return Err(foreign("it is empty"));
    }
    let (Some((count, _)), Some(brace)) = (start.split_first_chunk::<LENGTH_BYTES>(), start.get(LENGTH_BYTES)) else {
        return Err(foreign(&format!("it has only {} bytes", start.len())));
    };
    if start.starts_with(b"PK\x03\x04") {
        return Err(foreign("it is a zip archive, as PyTorch's .pt files and NumPy's .npz files are"));
    }
    let count = u64::from_le_bytes(*count);
    if *brace != b'{' {
        return Err(foreign("no JSON header follows its first 8 bytes"));
    }
    match usize::try_from(count) {
        Ok(count) if (2..=MAX_HEADER_BYTES).contains(&count) => {
            let end = (LENGTH_BYTES + count) as u64;
            if end <= length { Ok(count) } else { Err(truncated(name, length, end)) }
        }
        _ => Err(FormatError::Header {
            name: name.to_string(),
            reason: format!("it claims {count} bytes for itself; 2 to {MAX_HEADER_BYTES} are allowed"),
        }),
    }
}

/// What a header says of the data, checked against the file's length.
struct Layout {
    fields: BTreeMap<String, String>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Layout {
    /// From everything before the data, checking that a file of `length` bytes is described to the byte.
    fn parse(prefix: &[u8], length: u64, name: &str) -> Result<Self, FormatError> {
        let damaged = |reason: &str| FormatError::Header { name: name.to_string(), reason: shorten(reason) };
        let json = prefix.get(LENGTH_BYTES..).unwrap_or_default();
        let RawHeader { fields, tensors } =
            serde_json::from_slice(json).map_err(|error| damaged(&error.to_string()))?;

        // Safetensors' own rules: the tensors follow each other without gaps, and are as long as their shapes say.
        let mut in_order: Vec<(String, TensorInfo)> = tensors.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        in_order.sort_by_key(|(_, info)| info.data_offsets);
        let layout =
            Metadata::new(None::<HashMap<String, String>>, in_order).map_err(|error| damaged(&error.to_string()))?;
        let expected = (prefix.len() as u64).saturating_add(layout.data_len() as u64);
        if length < expected {
            return Err(truncated(name, length, expected));
        }
        if length > expected {
            return Err(FormatError::TooLong { name: name.to_string(), found: length, expected });
        }
        Ok(Self { fields, tensors })
    }
}

/// What stands before the data in a file of ours.
struct Header {
    fields: BTreeMap<String, String>,
    tensors: BTreeMap<String, TensorInfo>,
    /// Where the digits of the checksum begin.
    checksum_at: usize,
    checksum: String,
}

impl Header {
    fn parse(prefix: &[u8], length: u64, name: &str) -> Result<Self, FormatError> {
        let damaged = |reason: &str| FormatError::Header { name: name.to_string(), reason: shorten(reason) };
        let Layout { fields, tensors } = Layout::parse(prefix, length, name)?;
        let Some(checksum) = fields.get(CHECKSUM).cloned() else {
            return Err(if fields.keys().any(|key| key.starts_with(PREFIX)) {
                damaged(&format!("the field {CHECKSUM} is missing"))
            } else {
                FormatError::Foreign { name: name.to_string(), tensors: tensors.len() }
            });
        };
        if checksum.len() != DIGITS {
            return Err(damaged(&format!("the field {CHECKSUM} has {} digits instead of {DIGITS}", checksum.len())));
        }
        let checksum_at = place_of_checksum(prefix, &checksum)
            .ok_or_else(|| damaged(&format!("the field {CHECKSUM} is not written as striate writes it")))?;
        Ok(Self { fields, tensors, checksum_at, checksum })
    }

    /// The hash over everything before the data, the checksum's digits replaced by zeros.
    fn hash_of(&self, prefix: &[u8]) -> Sha256 {
        let mut hash = Sha256::new();
        hash.update(prefix.get(..self.checksum_at).unwrap_or_default());
        hash.update(ZEROS);
        hash.update(prefix.get(self.checksum_at + DIGITS..).unwrap_or_default());
        hash
    }

    fn check(&self, hash: Sha256, name: &str) -> Result<(), FormatError> {
        let found = hex(&hash.finalize());
        if found == self.checksum {
            return Ok(());
        }
        Err(FormatError::Damaged { name: name.to_string(), found, expected: shorten(&self.checksum) })
    }
}

/// Where the checksum's digits begin. JSON escapes quotes inside strings, so nothing else can look like this.
fn place_of_checksum(bytes: &[u8], checksum: &str) -> Option<usize> {
    let before = format!("\"{CHECKSUM}\":\"");
    let all = format!("{before}{checksum}\"");
    let at = bytes.windows(all.len()).position(|window| window == all.as_bytes())?;
    Some(at + before.len())
}

struct OrderedHeader<'a> {
    fields: &'a BTreeMap<&'a str, &'a str>,
    tensors: &'a [(&'a str, TensorInfo)],
}

impl Serialize for OrderedHeader<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.tensors.len() + 1))?;
        map.serialize_entry(METADATA, self.fields)?;
        for (name, info) in self.tensors {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}

/// The header as it stands in the file, read in one pass with every count bounded.
struct RawHeader {
    fields: BTreeMap<String, String>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the header of a safetensors file")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut fields = None;
        let mut tensors = BTreeMap::new();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == METADATA {
                let again = fields.replace(map.next_value_seed(FieldsVisitor)?);
                if again.is_some() {
                    return Err(A::Error::custom("two blocks of metadata"));
                }
                continue;
            }
            let info: TensorInfo = map.next_value()?;
            if info.shape.len() > MAX_AXES {
                let axes = info.shape.len();
                return Err(A::Error::custom(format!("a tensor has {axes} axes; at most {MAX_AXES} are allowed")));
            }
            if tensors.len() == MAX_TENSORS {
                return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            }
            let shown = shorten(&name);
            if tensors.insert(name.into_owned(), info).is_some() {
                return Err(A::Error::custom(format!("two tensors are called {shown:?}")));
            }
        }
        Ok(RawHeader { fields: fields.unwrap_or_default(), tensors })
    }
}

struct FieldsVisitor;

impl<'de> DeserializeSeed<'de> for FieldsVisitor {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata: texts by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            if fields.len() == MAX_FIELDS {
                return Err(A::Error::custom(format!("more than {MAX_FIELDS} metadata fields")));
            }
            let shown = shorten(&key);
            if fields.insert(key, value).is_some() {
                return Err(A::Error::custom(format!("two metadata fields are called {shown:?}")));
            }
        }
        Ok(fields)
    }
}

/// Text of a stranger's, fit for a message.
pub(super) fn shorten(text: &str) -> String {
    const MOST: usize = 200;
    let mut short: String = text.chars().take(MOST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        short.push_str("...");
    }
    short
}

fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n))
}

fn truncated(name: &str, found: u64, expected: u64) -> FormatError {
    FormatError::Truncated { name: name.to_string(), found, expected }
}

pub(super) fn unwritable(what: impl Into<String>, reason: impl Into<String>) -> FormatError {
    FormatError::Unwritable { what: what.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests;
