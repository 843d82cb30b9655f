//! Arrays of constants: what a file holds, and what folding makes of it.

use super::node::{Problem, invalid, unsupported};
use super::proto::TensorProto;
use ndarray::{ArrayD, IxDyn};
use std::fmt;

/// The most numbers that folding makes of smaller arrays: more is no arithmetic with shapes.
pub(super) const MOST_FOLDED: usize = 1 << 24;

/// The most axes of an array: more than any that is computed with.
pub(super) const MOST_AXES: usize = 64;

/// What the numbers of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    U8,
    I8,
    U16,
    I16,
    I32,
    I64,
    Text,
    Bool,
    F16,
    F64,
    U32,
    U64,
    Bf16,
    F8E4M3Fn,
    F8E4M3Fnuz,
    F8E5M2,
    F8E5M2Fnuz,
    U4,
    I4,
    F4E2M1,
    F8E8M0,
    U2,
    I2,
}

/// A float of 8 bits or fewer: a sign, an exponent and a fraction.
#[derive(Clone, Copy)]
struct Small {
    bits: u32,
    /// Bits of the fraction.
    fraction: i32,
    /// The exponent of the least number with all its digits.
    least: i32,
    most: f32,
    special: Special,
}

/// Which codes of a small float are no numbers.
#[derive(Clone, Copy, PartialEq)]
enum Special {
    /// Those with the largest exponent: infinities and NaN.
    Ieee,
    /// The largest code alone is NaN.
    Last,
    /// What would be -0 is NaN.
    MinusZero,
    None,
}

impl Small {
    fn value(self, code: u8) -> f32 {
        let (sign, fraction_bits) = (code >> (self.bits - 1) & 1, self.fraction as u32);
        let fraction = code & ((1 << fraction_bits) - 1);
        let size = code & ((1 << (self.bits - 1)) - 1);
        let exponent = i32::from(size >> fraction_bits);
        let largest = (1 << (self.bits - 1 - fraction_bits)) - 1;
        match self.special {
            Special::Ieee if exponent == largest && fraction != 0 => return f32::NAN,
            Special::Ieee if exponent == largest => return if sign == 1 { f32::NEG_INFINITY } else { f32::INFINITY },
            Special::Last if i32::from(size) == (1 << (self.bits - 1)) - 1 => return f32::NAN,
            Special::MinusZero if sign == 1 && size == 0 => return f32::NAN,
            _ => {}
        }
        let unit = 2f32.powi(exponent.max(1) - 1 + self.least - self.fraction);
        let whole = if exponent == 0 { f32::from(fraction) } else { f32::from(fraction) + 2f32.powi(self.fraction) };
        if sign == 1 { -whole * unit } else { whole * unit }
    }

    /// The nearest number; beyond the largest, that one with `saturate`.
    fn round(self, x: f32, saturate: bool) -> f32 {
        if x.is_nan() {
            // Without NaN there is nothing else it could be.
            return if self.special == Special::None { 0.0 } else { x };
        }
        let rounded = round_to(x, self.fraction, self.least, self.most);
        if rounded.is_infinite() {
            return match self.special {
                _ if saturate => self.most.copysign(x),
                Special::None => self.most.copysign(x),
                Special::Ieee => rounded,
                _ => f32::NAN,
            };
        }
        if rounded == 0.0 && self.special == Special::MinusZero { 0.0 } else { rounded }
    }
}

impl Element {
    /// From the standard's number.
    pub(super) fn from_code(code: i32) -> Result<Self, Problem> {
        Ok(match code {
            1 => Element::F32,
            2 => Element::U8,
            3 => Element::I8,
            4 => Element::U16,
            5 => Element::I16,
            6 => Element::I32,
            7 => Element::I64,
            8 => Element::Text,
            9 => Element::Bool,
            10 => Element::F16,
            11 => Element::F64,
            12 => Element::U32,
            13 => Element::U64,
            16 => Element::Bf16,
            17 => Element::F8E4M3Fn,
            18 => Element::F8E4M3Fnuz,
            19 => Element::F8E5M2,
            20 => Element::F8E5M2Fnuz,
            21 => Element::U4,
            22 => Element::I4,
            23 => Element::F4E2M1,
            24 => Element::F8E8M0,
            25 => Element::U2,
            26 => Element::I2,
            _ => return unsupported(format!("numbers of type {code}")),
        })
    }

    pub(super) fn is_float(self) -> bool {
        matches!(self, Element::F32 | Element::F16 | Element::F64 | Element::Bf16 | Element::F8E8M0)
            || self.small().is_some()
    }

    fn small(self) -> Option<Small> {
        let small = |bits, fraction, least, most, special| Some(Small { bits, fraction, least, most, special });
        match self {
            Element::F8E4M3Fn => small(8, 3, -6, 448.0, Special::Last),
            Element::F8E4M3Fnuz => small(8, 3, -7, 240.0, Special::MinusZero),
            Element::F8E5M2 => small(8, 2, -14, 57_344.0, Special::Ieee),
            Element::F8E5M2Fnuz => small(8, 2, -15, 57_344.0, Special::MinusZero),
            Element::F4E2M1 => small(4, 1, 0, 6.0, Special::None),
            _ => None,
        }
    }

    /// Bits of one number, for those of which several are in a byte.
    fn bits(self) -> u32 {
        match self {
            Element::U4 | Element::I4 | Element::F4E2M1 => 4,
            Element::U2 | Element::I2 => 2,
            _ => 8,
        }
    }

    /// The least and the largest whole number it can be; for the others, those of 64 bits.
    pub(super) fn range(self) -> (i64, i64) {
        match self {
            Element::U8 => (0, 255),
            Element::I8 => (-128, 127),
            Element::U16 => (0, 65_535),
            Element::I16 => (-32_768, 32_767),
            Element::I32 => (i32::MIN.into(), i32::MAX.into()),
            Element::U32 => (0, u32::MAX.into()),
            Element::Bool => (0, 1),
            Element::U4 => (0, 15),
            Element::I4 => (-8, 7),
            Element::U2 => (0, 3),
            Element::I2 => (-2, 1),
            _ => (i64::MIN, i64::MAX),
        }
    }

    /// The nearest number that this type of float holds.
    pub(super) fn round(self, x: f32, saturate: bool) -> f32 {
        if let Some(small) = self.small() {
            return small.round(x, saturate);
        }
        match self {
            Element::F16 => round_to(x, 10, -14, 65_504.0),
            Element::Bf16 => round_to(x, 7, -126, f32::from_bits(0x7f7f_0000)),
            _ => x,
        }
    }

    /// Bytes of one number in `raw_data`.
    fn bytes(self) -> usize {
        match self {
            Element::U8 | Element::I8 | Element::Bool => 1,
            Element::F8E4M3Fn | Element::F8E4M3Fnuz | Element::F8E5M2 | Element::F8E5M2Fnuz | Element::F8E8M0 => 1,
            // Several in a byte.
            Element::U4 | Element::I4 | Element::F4E2M1 | Element::U2 | Element::I2 => 0,
            Element::U16 | Element::I16 | Element::F16 | Element::Bf16 => 2,
            Element::F32 | Element::I32 | Element::U32 => 4,
            Element::I64 | Element::U64 | Element::F64 => 8,
            Element::Text => 0,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// Every float is kept as `f32` and every whole number as `i64`, whatever its type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    Float(ArrayD<f32>),
    Int(ArrayD<i64>),
    Text(ArrayD<String>),
}

/// Numbers of one type in an array.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    pub(super) element: Element,
    pub(super) values: Values,
}

/// The same for values of any type: `$body` with the array as `$array`, its result in the same wrapping.
macro_rules! each_type {
    ($tensor:expr, $array:ident => $body:expr) => {
        crate::formats::onnx::tensor::Tensor {
            element: $tensor.element,
            values: match &$tensor.values {
                crate::formats::onnx::tensor::Values::Float($array) => {
                    crate::formats::onnx::tensor::Values::Float($body)
                }
                crate::formats::onnx::tensor::Values::Int($array) => crate::formats::onnx::tensor::Values::Int($body),
                crate::formats::onnx::tensor::Values::Text($array) => crate::formats::onnx::tensor::Values::Text($body),
            },
        }
    };
}
pub(super) use each_type;

impl Tensor {
    pub(super) fn floats(array: ArrayD<f32>) -> Self {
        Self { element: Element::F32, values: Values::Float(array) }
    }

    pub(super) fn ints(array: ArrayD<i64>) -> Self {
        Self { element: Element::I64, values: Values::Int(array) }
    }

    /// A list of whole numbers.
    pub(super) fn list(numbers: Vec<i64>) -> Self {
        Self::ints(ArrayD::from_shape_vec(IxDyn(&[numbers.len()]), numbers).unwrap_or_default())
    }

    pub(super) fn dims(&self) -> &[usize] {
        match &self.values {
            Values::Float(array) => array.shape(),
            Values::Int(array) => array.shape(),
            Values::Text(array) => array.shape(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.dims().iter().product()
    }

    pub(super) fn as_floats(&self) -> Result<&ArrayD<f32>, Problem> {
        match &self.values {
            Values::Float(array) => Ok(array),
            _ => invalid(format!("numbers of type {} where floats are needed", self.element)),
        }
    }

    pub(super) fn as_ints(&self) -> Result<&ArrayD<i64>, Problem> {
        match &self.values {
            Values::Int(array) => Ok(array),
            _ => invalid(format!("numbers of type {} where whole numbers are needed", self.element)),
        }
    }

    /// Floats or whole numbers, as floats in row-major order.
    pub(super) fn to_floats(&self) -> Result<Vec<f32>, Problem> {
        match &self.values {
            Values::Float(array) => Ok(array.iter().copied().collect()),
            Values::Int(array) => Ok(array.iter().map(|&n| n as f32).collect()),
            Values::Text(_) => invalid("text where numbers are needed"),
        }
    }

    /// Whole numbers in row-major order.
    pub(super) fn to_ints(&self) -> Result<Vec<i64>, Problem> {
        Ok(self.as_ints()?.iter().copied().collect())
    }

    /// The only number.
    pub(super) fn scalar(&self) -> Result<f32, Problem> {
        match self.to_floats()?.as_slice() {
            &[number] => Ok(number),
            numbers => invalid(format!("{} numbers where one is needed", numbers.len())),
        }
    }

    /// From the file's message; the bytes of numbers in another file are `external`.
    pub(super) fn read(proto: &TensorProto, external: Option<&[u8]>) -> Result<Self, Problem> {
        let element = Element::from_code(proto.data_type)?;
        let dims = sizes(&proto.dims)?;
        let len = count(&dims)?;
        let raw = external.unwrap_or(&proto.raw_data);
        let wrong = |found: usize, what: &str| {
            Problem::Invalid(format!("its shape {dims:?} asks for {len} {what}, but it has {found}"))
        };
        let is_raw = external.is_some() || !raw.is_empty();
        if element.bits() < 8 || element.small().is_some() || element == Element::F8E8M0 {
            return Self::read_small(proto, raw, is_raw, element, &dims, len);
        }
        if is_raw && element != Element::Text {
            let bytes = element.bytes();
            if raw.len() != len * bytes {
                return Err(wrong(raw.len(), &format!("numbers of {bytes} bytes")));
            }
        }
        let shape = IxDyn(&dims);
        let array = |values: Vec<f32>| -> Result<Values, Problem> {
            if values.len() != len {
                return Err(wrong(values.len(), "numbers"));
            }
            ArrayD::from_shape_vec(shape.clone(), values).map(Values::Float).or_else(|e| invalid(e.to_string()))
        };
        let whole = |values: Vec<i64>| -> Result<Values, Problem> {
            if values.len() != len {
                return Err(wrong(values.len(), "numbers"));
            }
            ArrayD::from_shape_vec(shape.clone(), values).map(Values::Int).or_else(|e| invalid(e.to_string()))
        };
        let large = |n: u64| i64::try_from(n).or_else(|_| unsupported(format!("the number {n}, beyond 63 bits")));
        let bits = |n: &i32| *n as u16;
        let values = match (element, is_raw) {
            (Element::F32, true) => array(words(raw).map(f32::from_le_bytes).collect())?,
            (Element::F32, false) => array(proto.float_data.clone())?,
            (Element::F64, true) => array(words(raw).map(|b| f64::from_le_bytes(b) as f32).collect())?,
            (Element::F64, false) => array(proto.double_data.iter().map(|&n| n as f32).collect())?,
            (Element::F16, true) => array(words(raw).map(|b| half(u16::from_le_bytes(b))).collect())?,
            (Element::F16, false) => array(proto.int32_data.iter().map(|n| half(bits(n))).collect())?,
            (Element::Bf16, true) => array(words(raw).map(|b| brain(u16::from_le_bytes(b))).collect())?,
            (Element::Bf16, false) => array(proto.int32_data.iter().map(|n| brain(bits(n))).collect())?,
            (Element::U8 | Element::Bool, true) => whole(raw.iter().map(|&n| n.into()).collect())?,
            (Element::I8, true) => whole(raw.iter().map(|&n| (n as i8).into()).collect())?,
            (Element::U16, true) => whole(words(raw).map(|b| u16::from_le_bytes(b).into()).collect())?,
            (Element::I16, true) => whole(words(raw).map(|b| i16::from_le_bytes(b).into()).collect())?,
            (Element::I32, true) => whole(words(raw).map(|b| i32::from_le_bytes(b).into()).collect())?,
            (Element::U32, true) => whole(words(raw).map(|b| u32::from_le_bytes(b).into()).collect())?,
            (Element::I64, true) => whole(words(raw).map(i64::from_le_bytes).collect())?,
            (Element::U64, true) => whole(words(raw).map(|b| large(u64::from_le_bytes(b))).collect::<Result<_, _>>()?)?,
            (Element::I64, false) => whole(proto.int64_data.clone())?,
            (Element::U32 | Element::U64, false) => {
                whole(proto.uint64_data.iter().map(|&n| large(n)).collect::<Result<_, _>>()?)?
            }
            (Element::U8 | Element::Bool | Element::I8 | Element::U16 | Element::I16 | Element::I32, false) => {
                whole(proto.int32_data.iter().map(|&n| n.into()).collect())?
            }
            (Element::Text, _) => {
                if proto.string_data.len() != len {
                    return Err(wrong(proto.string_data.len(), "texts"));
                }
                let texts = proto.string_data.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
                ArrayD::from_shape_vec(shape, texts).map(Values::Text).or_else(|e| invalid(e.to_string()))?
            }
            // Read above.
            _ => return unsupported(format!("numbers of type {element}")),
        };
        Ok(Self { element, values })
    }
}

impl Tensor {
    /// Numbers of 8 bits or fewer, those of fewer from the lowest bits of each byte on.
    fn read_small(
        proto: &TensorProto,
        raw: &[u8],
        is_raw: bool,
        element: Element,
        dims: &[usize],
        len: usize,
    ) -> Result<Self, Problem> {
        let bits = element.bits();
        let bytes: Vec<u8> = if is_raw { raw.to_vec() } else { proto.int32_data.iter().map(|&n| n as u8).collect() };
        let each = 8 / bits as usize;
        if bytes.len() != len.div_ceil(each) {
            return invalid(format!(
                "its shape {dims:?} asks for {len} numbers of {bits} bits, but it has {} bytes",
                bytes.len()
            ));
        }
        let codes = (0..len).map(|i| bytes[i / each] >> (i % each * bits as usize) & ((1u16 << bits) - 1) as u8);
        let shape = IxDyn(dims);
        let values = match element.small() {
            Some(small) => {
                ArrayD::from_shape_vec(shape, codes.map(|code| small.value(code)).collect()).map(Values::Float)
            }
            None if element == Element::F8E8M0 => {
                let power = |code: u8| if code == 255 { f32::NAN } else { 2f64.powi(i32::from(code) - 127) as f32 };
                ArrayD::from_shape_vec(shape, codes.map(power).collect()).map(Values::Float)
            }
            None => {
                let (_, high) = element.range();
                let whole =
                    |code: u8| if i64::from(code) > high { i64::from(code) - (1 << bits) } else { i64::from(code) };
                ArrayD::from_shape_vec(shape, codes.map(whole).collect()).map(Values::Int)
            }
        };
        Ok(Self { element, values: values.or_else(|error| invalid(error.to_string()))? })
    }
}

/// Sizes of axes, none of them negative.
pub(super) fn sizes(dims: &[i64]) -> Result<Vec<usize>, Problem> {
    check_axes(dims.len())?;
    dims.iter()
        .map(|&n| usize::try_from(n).or_else(|_| invalid(format!("a size of {n} in the shape {dims:?}"))))
        .collect()
}

/// Whether an array may have so many axes.
pub(super) fn check_axes(axes: usize) -> Result<(), Problem> {
    if axes > MOST_AXES {
        return unsupported(format!("an array of {axes} axes; at most {MOST_AXES} are allowed"));
    }
    Ok(())
}

/// How many numbers an array of this shape has, within what memory can hold.
pub(super) fn count(dims: &[usize]) -> Result<usize, Problem> {
    check_axes(dims.len())?;
    crate::shape::checked_product(dims).or_else(|error| invalid(error.to_string()))
}

/// [`count`] for an array that folding makes.
pub(super) fn folded_count(dims: &[usize]) -> Result<usize, Problem> {
    match count(dims)? {
        n if n > MOST_FOLDED => {
            unsupported(format!("a constant of shape {dims:?}; at most {MOST_FOLDED} numbers are computed"))
        }
        n => Ok(n),
    }
}

/// Numbers of `N` bytes.
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

/// A number of 16 bits: 1 of sign, 5 of exponent, 10 of fraction.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, (bits >> 10) & 31, f32::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f32.powi(i32::from(exponent) - 15),
    };
    if sign == 1 { -size } else { size }
}

/// The upper half of an `f32`.
fn brain(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest number with so many bits of fraction; ties to even, infinite beyond `most`, gradual below 2^`least`.
fn round_to(x: f32, fraction: i32, least: i32, most: f32) -> f32 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let wide = f64::from(x);
    let exponent = (wide.abs().log2().floor() as i32).max(least);
    let unit = 2f64.powi(exponent - fraction);
    let rounded = (wide / unit).round_ties_even() * unit;
    if rounded.abs() > f64::from(most) { f32::INFINITY.copysign(x) } else { rounded as f32 }
}
