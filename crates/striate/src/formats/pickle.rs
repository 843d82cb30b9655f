//! The book's own format: a pickled dictionary of NumPy arrays (`pickle.dump(params, f)`), read without Python.
//!
//! A pickle is a program for a small machine that can call anything. This reader is not that machine: it knows the few
//! instructions that spell a dictionary of arrays, in protocols 0 to 5, and the few names of NumPy that stand for one. It
//! calls nothing, and whatever else is in the file is an error that names it and its place. Numbers are 32 or 64 bits
//! wide, of either byte order, in C or Fortran order; they become `f32`.
//!
//! An object made once can be named any number of times, so little of a file can stand for much memory. Therefore text
//! and bytes stay where they are in the file until an array asks for them, and what all arrays ask for together is
//! bounded by a few times the file's length.

use super::arrays::NamedArray;
use super::container::shorten;
use std::collections::HashMap;

/// More objects than any dictionary of weights needs; each takes tens of bytes.
const MAX_OBJECTS: usize = 1 << 20;
/// How many times the file's length all arrays together may be, in bytes.
const MOST_SHARING: usize = 4;

/// Why a pickle is not read. `offset` counts bytes from the file's start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// An instruction that a dictionary of arrays does not need.
    #[error(
        "{name}, offset {offset}: the pickle instruction {opcode:#04x} ({}) is not part of a dictionary of NumPy arrays, \
         and is not carried out", opcode_name(*opcode)
    )]
    Opcode {
        /// The file.
        name: String,
        /// Where.
        offset: usize,
        /// Which instruction.
        opcode: u8,
    },
    /// A name of Python's that a dictionary of arrays does not need.
    #[error(
        "{name}, offset {offset}: the pickle names {module}.{global}, which is not part of a dictionary of NumPy arrays, \
         and is not called"
    )]
    Global {
        /// The file.
        name: String,
        /// Where.
        offset: usize,
        /// Its module.
        module: String,
        /// Its name there.
        global: String,
    },
    /// The file ends too early.
    #[error("{name} is cut short: it ends inside a pickle instruction at offset {offset}; copy or download it again")]
    Truncated {
        /// The file.
        name: String,
        /// Where.
        offset: usize,
    },
    /// An instruction that does not make sense where it stands.
    #[error("{name}, offset {offset}: {reason}")]
    Malformed {
        /// The file.
        name: String,
        /// Where.
        offset: usize,
        /// What is wrong.
        reason: String,
    },
    /// An entry of the dictionary that is no array of numbers.
    #[error("{name}, entry {entry:?}: {reason}")]
    Entry {
        /// The file.
        name: String,
        /// The dictionary's key.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// Memory can't be had.
    #[error("{bytes} bytes of memory for the arrays of {name} could not be had")]
    OutOfMemory {
        /// The file.
        name: String,
        /// How much.
        bytes: usize,
    },
}

/// The place of an object among all that the pickle made.
type Id = usize;

/// What the instructions make. Nothing in it is larger than a few words but dictionaries and tuples, whose entries are
/// instructions of the file themselves.
#[derive(Clone, Debug)]
enum Object<'a> {
    None,
    Bool(bool),
    Int(i64),
    Text(Text<'a>),
    Bytes(&'a [u8]),
    /// The bytes that this text is in Latin-1.
    Latin1(Text<'a>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Dtype(Number),
    /// An array before its state is set.
    EmptyArray,
    Array(Array),
}

#[derive(Clone, Copy, Debug)]
enum Text<'a> {
    Utf8(&'a str),
    /// Protocol 0: Latin-1 with `\uXXXX` for whatever is not.
    RawEscaped(&'a [u8]),
}

impl Text<'_> {
    /// Bytes of the file.
    fn len(self) -> usize {
        match self {
            Text::Utf8(text) => text.len(),
            Text::RawEscaped(bytes) => bytes.len(),
        }
    }

    fn chars(self) -> impl Iterator<Item = char> {
        let (utf8, escaped) = match self {
            Text::Utf8(text) => (text, &b""[..]),
            Text::RawEscaped(bytes) => ("", bytes),
        };
        utf8.chars().chain(RawEscaped(escaped))
    }

    fn owned(self) -> String {
        self.chars().collect()
    }

    fn is(self, word: &str) -> bool {
        self.chars().eq(word.chars())
    }
}

/// Python's raw-unicode-escape.
struct RawEscaped<'a>(&'a [u8]);

impl Iterator for RawEscaped<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let digits = match self.0 {
            [b'\\', b'u', ..] => 4,
            [b'\\', b'U', ..] => 8,
            _ => 0,
        };
        let code = self.0.get(2..2 + digits).filter(|digits| !digits.is_empty()).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            char::from_u32(u32::from_str_radix(digits, 16).ok()?)
        });
        let (first, rest) = self.0.split_first()?;
        self.0 = if code.is_some() { self.0.get(2 + digits..).unwrap_or_default() } else { rest };
        code.or(Some(char::from(*first)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Global {
    /// `numpy._core.multiarray._reconstruct`: an empty array.
    Reconstruct,
    /// `numpy._core.numeric._frombuffer`: an array with its numbers (protocol 5).
    FromBuffer,
    Ndarray,
    Dtype,
    /// `_codecs.encode`: how protocols below 3 spell bytes.
    Encode,
    OrderedDict,
}

/// How a number is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    /// 4 or 8 bytes.
    pub(super) width: usize,
    pub(super) big_endian: bool,
}

impl Number {
    /// The number in this place of an array's bytes.
    pub(super) fn read(self, bytes: &[u8], at: usize) -> f32 {
        let bytes = bytes.get(at * self.width..).unwrap_or_default();
        match (self, bytes.first_chunk::<4>(), bytes.first_chunk::<8>()) {
            (Number { width: 4, big_endian: false }, Some(bytes), _) => f32::from_le_bytes(*bytes),
            (Number { width: 4, big_endian: true }, Some(bytes), _) => f32::from_be_bytes(*bytes),
            (Number { width: 8, big_endian: false }, _, Some(bytes)) => f64::from_le_bytes(*bytes) as f32,
            (Number { width: 8, big_endian: true }, _, Some(bytes)) => f64::from_be_bytes(*bytes) as f32,
            _ => f32::NAN,
        }
    }
}

#[derive(Clone, Debug)]
struct Array {
    dtype: Id,
    shape: Vec<usize>,
    fortran: bool,
    data: Id,
}

/// The arrays of a pickled dictionary, in its order; `name` is for messages.
///
/// ```
/// use striate::formats::read_pickle;
/// // pickle.dumps({"b1": numpy.array([1, 2], "f4")}, protocol=5)
/// let pickle = b"\x80\x05\x95\x8d\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x02b1\x94\x8c\x13numpy._core.numeric\x94\
///     \x8c\x0b_frombuffer\x94\x93\x94(\x96\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00@\x94\
///     \x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02f4\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNN\
///     J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x02\x85\x94\x8c\x01C\x94t\x94R\x94s.";
/// let arrays = read_pickle(pickle, "params.pkl")?;
/// assert_eq!((arrays[0].name.as_str(), arrays[0].values.as_slice()), ("b1", &[1.0, 2.0][..]));
/// // pickle.dumps of an object that would call os.system when it is loaded.
/// let error = read_pickle(b"cos\nsystem\n(S'echo'\ntR.", "params.pkl").unwrap_err();
/// assert!(error.to_string().contains("offset 0: the pickle names os.system"));
/// # Ok::<(), striate::formats::PickleError>(())
/// ```
///
/// # Errors
/// See [`PickleError`]. A refusal takes little time and memory whatever the file claims.
pub fn read_pickle(bytes: &[u8], name: &str) -> Result<Vec<NamedArray>, PickleError> {
    let mut machine =
        Machine { bytes, at: 0, name, objects: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    let top = machine.run()?;
    machine.arrays(top)
}

struct Machine<'a> {
    bytes: &'a [u8],
    /// The next byte to read.
    at: usize,
    name: &'a str,
    objects: Vec<Object<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    fn malformed(&self, offset: usize, reason: impl Into<String>) -> PickleError {
        PickleError::Malformed { name: self.name.into(), offset, reason: reason.into() }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(count);
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(taken) => {
                self.at += count;
                Ok(taken)
            }
            None => Err(PickleError::Truncated { name: self.name.into(), offset: self.at }),
        }
    }

    fn number<const N: usize>(&mut self) -> Result<u64, PickleError> {
        let taken = self.take(N)?;
        Ok(taken.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// Up to the end of the line, without it.
    fn line(&mut self) -> Result<&'a [u8], PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        match rest.iter().position(|&byte| byte == b'\n') {
            Some(length) => Ok(self.take(length + 1)?.get(..length).unwrap_or_default()),
            None => Err(PickleError::Truncated { name: self.name.into(), offset: self.at }),
        }
    }

    fn decimal(&mut self, offset: usize) -> Result<i64, PickleError> {
        let line = self.line()?;
        let text = std::str::from_utf8(line).unwrap_or_default();
        let text = text.strip_suffix('L').unwrap_or(text);
        text.parse().map_err(|_| self.malformed(offset, format!("{:?} is no number", shorten(text))))
    }

    /// Bytes whose length stands before them.
    fn counted<const N: usize>(&mut self) -> Result<&'a [u8], PickleError> {
        let length = self.number::<N>()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(PickleError::Truncated { name: self.name.into(), offset: self.at }),
        }
    }

    fn utf8(&self, bytes: &'a [u8], offset: usize) -> Result<Object<'a>, PickleError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Object::Text(Text::Utf8(text))),
            Err(_) => Err(self.malformed(offset, "a text is not UTF-8")),
        }
    }

    fn push(&mut self, object: Object<'a>, offset: usize) -> Result<(), PickleError> {
        if self.objects.len() == MAX_OBJECTS {
            return Err(self.malformed(offset, format!("more than {MAX_OBJECTS} objects")));
        }
        self.stack.push(self.objects.len());
        self.objects.push(object);
        Ok(())
    }

    /// Takes the top of the stack, but nothing from below the last mark.
    fn pop(&mut self, offset: usize) -> Result<Id, PickleError> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(self.malformed(offset, "it takes something from an empty stack"));
        }
        self.stack.pop().ok_or_else(|| self.malformed(offset, "it takes something from an empty stack"))
    }

    fn top(&self, offset: usize) -> Result<Id, PickleError> {
        self.stack.last().copied().ok_or_else(|| self.malformed(offset, "it names the top of an empty stack"))
    }

    /// Everything since the last mark.
    fn since_mark(&mut self, offset: usize) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.malformed(offset, "there is no mark on the stack"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn object(&self, id: Id) -> &Object<'a> {
        self.objects.get(id).unwrap_or(&Object::None)
    }

    fn remember(&mut self, place: u64, offset: usize) -> Result<(), PickleError> {
        let top = self.top(offset)?;
        if self.memo.len() == MAX_OBJECTS {
            return Err(self.malformed(offset, format!("more than {MAX_OBJECTS} remembered objects")));
        }
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u64, offset: usize) -> Result<(), PickleError> {
        if self.stack.len() == MAX_OBJECTS {
            return Err(self.malformed(offset, format!("more than {MAX_OBJECTS} objects on the stack")));
        }
        match self.memo.get(&place) {
            Some(&id) => {
                self.stack.push(id);
                Ok(())
            }
            None => Err(self.malformed(offset, format!("it names the remembered object {place}, and there is none"))),
        }
    }

    /// Carries out the instructions up to the last; gives what is then on top.
    fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            let offset = self.at;
            let opcode = self.take(1)?.first().copied().unwrap_or_default();
            match opcode {
                b'.' => return self.pop(offset),
                0x80 => match self.number::<1>()? {
                    0..=5 => {}
                    protocol => {
                        return Err(self.malformed(offset, format!("protocol {protocol}; 0 to 5 are read")));
                    }
                },
                // How long the next part of the file is: of use to readers of streams.
                0x95 => drop(self.take(8)?),
                b'(' => {
                    if self.marks.len() == MAX_OBJECTS {
                        return Err(self.malformed(offset, format!("more than {MAX_OBJECTS} marks")));
                    }
                    self.marks.push(self.stack.len());
                }
                b'N' => self.push(Object::None, offset)?,
                0x88 => self.push(Object::Bool(true), offset)?,
                0x89 => self.push(Object::Bool(false), offset)?,
                b'I' => {
                    let object = match self.bytes.get(self.at..self.at + 3) {
                        Some(b"00\n") => Object::Bool(false),
                        Some(b"01\n") => Object::Bool(true),
                        _ => Object::Int(self.decimal(offset)?),
                    };
                    if matches!(object, Object::Bool(_)) {
                        self.take(3)?;
                    }
                    self.push(object, offset)?;
                }
                b'L' => {
                    let number = self.decimal(offset)?;
                    self.push(Object::Int(number), offset)?;
                }
                b'J' => {
                    let number = self.number::<4>()? as u32;
                    self.push(Object::Int(i64::from(number.cast_signed())), offset)?;
                }
                b'K' => {
                    let number = self.number::<1>()?;
                    self.push(Object::Int(number.cast_signed()), offset)?;
                }
                b'M' => {
                    let number = self.number::<2>()?;
                    self.push(Object::Int(number.cast_signed()), offset)?;
                }
                0x8a => {
                    let bytes = self.counted::<1>()?;
                    if bytes.len() > 8 {
                        return Err(self.malformed(offset, "a number has more than 64 bits"));
                    }
                    // Two's complement: the last byte's sign goes on.
                    let sign = if bytes.last().is_some_and(|&byte| byte >= 128) { -1i64 } else { 0 };
                    let number = bytes.iter().rev().fold(sign, |number, &byte| number << 8 | i64::from(byte));
                    self.push(Object::Int(number), offset)?;
                }
                b'V' => {
                    let line = self.line()?;
                    self.push(Object::Text(Text::RawEscaped(line)), offset)?;
                }
                b'X' => {
                    let bytes = self.counted::<4>()?;
                    let text = self.utf8(bytes, offset)?;
                    self.push(text, offset)?;
                }
                0x8c => {
                    let bytes = self.counted::<1>()?;
                    let text = self.utf8(bytes, offset)?;
                    self.push(text, offset)?;
                }
                0x8d => {
                    let bytes = self.counted::<8>()?;
                    let text = self.utf8(bytes, offset)?;
                    self.push(text, offset)?;
                }
                // 'U' and 'T' are how Python 2 wrote an array's bytes.
                b'C' | b'U' => {
                    let bytes = self.counted::<1>()?;
                    self.push(Object::Bytes(bytes), offset)?;
                }
                b'B' | b'T' => {
                    let bytes = self.counted::<4>()?;
                    self.push(Object::Bytes(bytes), offset)?;
                }
                0x8e | 0x96 => {
                    let bytes = self.counted::<8>()?;
                    self.push(Object::Bytes(bytes), offset)?;
                }
                b')' => self.push(Object::Tuple(Vec::new()), offset)?,
                0x85..=0x87 => {
                    let mut items = Vec::with_capacity(3);
                    for _ in 0x84..opcode {
                        items.push(self.pop(offset)?);
                    }
                    items.reverse();
                    self.push(Object::Tuple(items), offset)?;
                }
                b't' => {
                    let items = self.since_mark(offset)?;
                    self.push(Object::Tuple(items), offset)?;
                }
                b'}' => self.push(Object::Dict(Vec::new()), offset)?,
                b'd' => {
                    let items = self.since_mark(offset)?;
                    let pairs = self.pairs(&items, offset)?;
                    self.push(Object::Dict(pairs), offset)?;
                }
                b's' => {
                    let (value, key) = (self.pop(offset)?, self.pop(offset)?);
                    self.extend(vec![(key, value)], offset)?;
                }
                b'u' => {
                    let items = self.since_mark(offset)?;
                    let pairs = self.pairs(&items, offset)?;
                    self.extend(pairs, offset)?;
                }
                b'p' => {
                    let place = self.decimal(offset)?;
                    self.remember(place.cast_unsigned(), offset)?;
                }
                b'q' => {
                    let place = self.number::<1>()?;
                    self.remember(place, offset)?;
                }
                b'r' => {
                    let place = self.number::<4>()?;
                    self.remember(place, offset)?;
                }
                0x94 => self.remember(self.memo.len() as u64, offset)?,
                b'g' => {
                    let place = self.decimal(offset)?;
                    self.recall(place.cast_unsigned(), offset)?;
                }
                b'h' => {
                    let place = self.number::<1>()?;
                    self.recall(place, offset)?;
                }
                b'j' => {
                    let place = self.number::<4>()?;
                    self.recall(place, offset)?;
                }
                b'c' => {
                    let (module, global) = (self.line()?, self.line()?);
                    self.global(&String::from_utf8_lossy(module), &String::from_utf8_lossy(global), offset)?;
                }
                0x93 => {
                    let (global, module) = (self.pop(offset)?, self.pop(offset)?);
                    let (Object::Text(module), Object::Text(global)) = (self.object(module), self.object(global))
                    else {
                        return Err(self.malformed(offset, "the name of something global is no text"));
                    };
                    // Long ones are none of ours.
                    let short = |text: &Text<'a>| text.chars().take(256).collect::<String>();
                    let (module, global) = (short(module), short(global));
                    self.global(&module, &global, offset)?;
                }
                b'R' => {
                    let (arguments, called) = (self.pop(offset)?, self.pop(offset)?);
                    let made = self.reduce(called, arguments, offset)?;
                    self.push(made, offset)?;
                }
                b'b' => {
                    let (state, target) = (self.pop(offset)?, self.top(offset)?);
                    self.build(target, state, offset)?;
                }
                opcode => return Err(PickleError::Opcode { name: self.name.into(), offset, opcode }),
            }
        }
    }

    fn pairs(&self, items: &[Id], offset: usize) -> Result<Vec<(Id, Id)>, PickleError> {
        let (pairs, odd) = items.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(self.malformed(offset, "a key of a dictionary has no value"));
        }
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    }

    fn extend(&mut self, pairs: Vec<(Id, Id)>, offset: usize) -> Result<(), PickleError> {
        let target = self.top(offset)?;
        match self.objects.get_mut(target) {
            Some(Object::Dict(entries)) => {
                entries.extend(pairs);
                Ok(())
            }
            _ => Err(self.malformed(offset, "it adds an entry to something that is no dictionary")),
        }
    }

    fn global(&mut self, module: &str, global: &str, offset: usize) -> Result<(), PickleError> {
        // NumPy 1 called its inner modules numpy.core.
        let found = match (module, global) {
            ("numpy._core.multiarray" | "numpy.core.multiarray", "_reconstruct") => Global::Reconstruct,
            ("numpy._core.numeric" | "numpy.core.numeric", "_frombuffer") => Global::FromBuffer,
            ("numpy", "ndarray") => Global::Ndarray,
            ("numpy", "dtype") => Global::Dtype,
            ("_codecs", "encode") => Global::Encode,
            ("collections", "OrderedDict") => Global::OrderedDict,
            _ => {
                return Err(PickleError::Global {
                    name: self.name.into(),
                    offset,
                    module: shorten(module),
                    global: shorten(global),
                });
            }
        };
        self.push(Object::Global(found), offset)
    }

    /// What a call would have made, for the calls that are known.
    fn reduce(&self, called: Id, arguments: Id, offset: usize) -> Result<Object<'a>, PickleError> {
        let (Object::Global(called), Object::Tuple(arguments)) = (self.object(called), self.object(arguments)) else {
            return Err(self.malformed(offset, "it calls something that is not known"));
        };
        let ids = arguments.as_slice();
        let arguments: Vec<&Object<'a>> = ids.iter().take(8).map(|&id| self.object(id)).collect();
        match (called, arguments.as_slice()) {
            (Global::Reconstruct, [Object::Global(Global::Ndarray), ..]) => Ok(Object::EmptyArray),
            (Global::OrderedDict, []) => Ok(Object::Dict(Vec::new())),
            (Global::Encode, [Object::Text(text), Object::Text(codec)]) if codec.is("latin1") => {
                Ok(Object::Latin1(*text))
            }
            (Global::Dtype, [Object::Text(code), ..]) => self.dtype(*code, offset),
            // Python 2 wrote short texts as bytes.
            (Global::Dtype, [Object::Bytes(code), ..]) => self.dtype(Text::RawEscaped(code), offset),
            (Global::FromBuffer, [_, Object::Dtype(_), Object::Tuple(shape), Object::Text(order)]) => {
                let shape = self.shape(shape, offset)?;
                let &[data, dtype, ..] = ids else {
                    return Err(self.malformed(offset, "an array has no numbers"));
                };
                Ok(Object::Array(Array { dtype, shape, fortran: order.is("F"), data }))
            }
            _ => Err(self.malformed(offset, format!("a call of {called:?} with arguments that are not known"))),
        }
    }

    fn dtype(&self, code: Text<'a>, offset: usize) -> Result<Object<'a>, PickleError> {
        let width = match code {
            code if code.is("f4") => 4,
            code if code.is("f8") => 8,
            code => {
                let code = shorten(&code.chars().take(20).collect::<String>());
                return Err(
                    self.malformed(offset, format!("an array holds numbers of the type {code:?}; f4 and f8 are read"))
                );
            }
        };
        Ok(Object::Dtype(Number { width, big_endian: false }))
    }

    fn shape(&self, ids: &[Id], offset: usize) -> Result<Vec<usize>, PickleError> {
        if ids.len() > 8 {
            return Err(self.malformed(offset, format!("an array has {} axes; at most 8 are allowed", ids.len())));
        }
        let size = |&id: &Id| match self.object(id) {
            Object::Int(size) => usize::try_from(*size).ok(),
            _ => None,
        };
        let shape: Option<Vec<usize>> = ids.iter().map(size).collect();
        shape.ok_or_else(|| self.malformed(offset, "the shape of an array is not made of sizes"))
    }

    /// Gives an object its state, where it stands: others may name the same one.
    fn build(&mut self, target: Id, state: Id, offset: usize) -> Result<(), PickleError> {
        let Object::Tuple(ids) = self.object(state) else {
            return Err(self.malformed(offset, "the state of an object is no tuple"));
        };
        // No state that is known has more; a tuple may be long, and named again and again.
        let ids: Vec<Id> = ids.iter().take(8).copied().collect();
        let state: Vec<&Object<'a>> = ids.iter().map(|&id| self.object(id)).collect();
        let built = match (self.object(target), state.as_slice()) {
            (Object::Dtype(dtype), [Object::Int(_), order, ..]) => {
                let big_endian = match order {
                    Object::Text(order) if order.is("<") || order.is("=") || order.is("|") => false,
                    Object::Bytes(b"<" | b"=" | b"|") => false,
                    Object::Text(order) if order.is(">") => true,
                    Object::Bytes(b">") => true,
                    _ => return Err(self.malformed(offset, "the order of an array's bytes is not known")),
                };
                Object::Dtype(Number { big_endian, ..*dtype })
            }
            (Object::EmptyArray, [Object::Int(_), Object::Tuple(shape), Object::Dtype(_), fortran, _]) => {
                let fortran = matches!(fortran, Object::Bool(true) | Object::Int(1));
                let shape = self.shape(shape, offset)?;
                let (Some(&dtype), Some(&data)) = (ids.get(2), ids.get(4)) else {
                    return Err(self.malformed(offset, "an array has no numbers"));
                };
                Object::Array(Array { dtype, shape, fortran, data })
            }
            _ => return Err(self.malformed(offset, "it sets a state that is not known")),
        };
        if let Some(target) = self.objects.get_mut(target) {
            *target = built;
        }
        Ok(())
    }

    /// The arrays of the dictionary `top`.
    fn arrays(&self, top: Id) -> Result<Vec<NamedArray>, PickleError> {
        let Object::Dict(entries) = self.object(top) else {
            return Err(self
                .malformed(0, "the pickle is not a dictionary; `pickle.dump(params, f)` with one makes such a file"));
        };
        let mut left = self.bytes.len().saturating_mul(MOST_SHARING);
        let mut arrays = Vec::new();
        for &(key, value) in entries {
            let entry = match self.object(key) {
                Object::Text(key) if key.len() <= 1024 => key.owned(),
                Object::Bytes(key) if key.len() <= 1024 => String::from_utf8_lossy(key).into_owned(),
                _ => return Err(self.malformed(0, "a key of the dictionary is not a text of at most 1024 bytes")),
            };
            let fault = |reason: String| PickleError::Entry { name: self.name.into(), entry: shorten(&entry), reason };
            let Object::Array(array) = self.object(value) else {
                return Err(fault("it is no NumPy array".into()));
            };
            let Object::Dtype(dtype) = self.object(array.dtype) else {
                return Err(fault("its numbers have no type".into()));
            };
            let bytes_needed = array.shape.iter().try_fold(dtype.width, |product, &size| product.checked_mul(size));
            let stored = match self.object(array.data) {
                Object::Bytes(bytes) => bytes.len(),
                Object::Latin1(text) => text.len(),
                _ => return Err(fault("its numbers are no bytes".into())),
            };
            // What is stored, not what is claimed, says how much memory and time it may take.
            let taken = stored + entry.len() + size_of::<NamedArray>();
            left = left.checked_sub(taken).ok_or_else(|| {
                fault(format!("the arrays up to this one are more than {MOST_SHARING} times as long as the file"))
            })?;
            let decoded: Vec<u8>;
            let bytes = match self.object(array.data) {
                Object::Bytes(bytes) => bytes,
                Object::Latin1(text) => {
                    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
                    decoded = bytes.ok_or_else(|| fault("its numbers are not written in Latin-1".into()))?;
                    &decoded[..]
                }
                _ => &[],
            };
            if bytes_needed != Some(bytes.len()) {
                return Err(fault(format!(
                    "its shape is {:?} with {} bytes a number, and it holds {} bytes",
                    array.shape,
                    dtype.width,
                    bytes.len()
                )));
            }
            let mut values = Vec::new();
            let count = bytes.len() / dtype.width;
            values.try_reserve_exact(count).map_err(|_| PickleError::OutOfMemory {
                name: self.name.into(),
                bytes: count.saturating_mul(size_of::<f32>()),
            })?;
            values.extend((0..count).map(|at| dtype.read(bytes, source(at, &array.shape, array.fortran))));
            arrays.push(NamedArray { name: entry, shape: array.shape.clone(), values });
        }
        Ok(arrays)
    }
}

/// Where the value that is `at` in row-major order lies.
pub(super) fn source(at: usize, shape: &[usize], fortran: bool) -> usize {
    if !fortran {
        return at;
    }
    // The place is a number whose digits are the indices; row-major the last axis is the lowest, in Fortran the first.
    let (mut rest, mut place) = (at, 0);
    let mut step: usize = shape.iter().product();
    for &size in shape.iter().rev() {
        step /= size.max(1);
        place += rest % size.max(1) * step;
        rest /= size.max(1);
    }
    place
}

/// What Python's `pickletools` calls the instructions that a hostile or another pickle has.
fn opcode_name(opcode: u8) -> &'static str {
    match opcode {
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'F' => "FLOAT",
        b'G' => "BINFLOAT",
        b'P' => "PERSID",
        b'Q' => "BINPERSID",
        b'S' => "STRING",
        b'a' => "APPEND",
        b'e' => "APPENDS",
        b'i' => "INST",
        b'l' => "LIST",
        b'o' => "OBJ",
        b']' => "EMPTY_LIST",
        0x81 => "NEWOBJ",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8b => "LONG4",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => "unknown",
    }
}
