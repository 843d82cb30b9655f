//! TensorBoard's event files: scalars and pictures by step, to be appended to a file that TensorBoard watches.
//!
//! The file is a row of TFRecords, each one `Event` message of TensorFlow's `event.proto`. Both are written here by hand:
//! four message types with a dozen fields do not need a generator. Frames are those of TensorFlow's
//! `lib/io/record_writer.h`: length (u64, little-endian), its checksum, the message, its checksum, where a checksum is CRC-32C
//! rotated right by 15 bits plus 0xa282ead8.
//!
//! ```
//! use striate::formats::tensorboard::{Value, event, file_version};
//!
//! let now = 1.7e9;
//! let mut file = file_version(now);
//! file.extend(event(now + 1.0, 10, &[("train/loss", Value::Scalar(0.25)), ("learning_rate", Value::Scalar(0.002))]));
//! assert_eq!(&file[..8], &24u64.to_le_bytes());
//! ```

/// What is told under a tag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A number, drawn as a curve over the steps.
    Scalar(f32),
    /// A picture.
    Image {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// The bytes of a PNG file.
        png: &'a [u8],
    },
}

/// The first record of every file; `time` is in seconds since 1970.
pub fn file_version(time: f64) -> Vec<u8> {
    let mut message = Message::default();
    message.double(1, time);
    message.bytes(3, b"brain.Event:2");
    record(&message.0)
}

/// A record of what was measured at a step; `time` is in seconds since 1970.
pub fn event(time: f64, step: u64, values: &[(&str, Value<'_>)]) -> Vec<u8> {
    let mut summary = Message::default();
    for (tag, value) in values {
        let mut one = Message::default();
        one.bytes(1, tag.as_bytes());
        match *value {
            Value::Scalar(number) => one.float(2, number),
            Value::Image { width, height, png } => {
                let mut image = Message::default();
                image.varint(1, height.into());
                image.varint(2, width.into());
                // Three channels: RGB.
                image.varint(3, 3);
                image.bytes(4, png);
                one.bytes(4, &image.0);
            }
        }
        summary.bytes(1, &one.0);
    }
    let mut message = Message::default();
    message.double(1, time);
    message.varint(2, step);
    message.bytes(5, &summary.0);
    record(&message.0)
}

/// A message of Protocol Buffers under construction: each field is its number with a wire type, and its value.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, wire_type: u64) {
        self.number(field << 3 | wire_type);
    }

    /// Seven bits a byte, the lowest first.
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.number(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.number(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }
}

fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(message.len() + 16);
    record.extend(length);
    record.extend(masked(&length).to_le_bytes());
    record.extend(message);
    record.extend(masked(message).to_le_bytes());
    record
}

fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    /// Against what TensorBoard's own writer gives (tests/reference/records.py).
    #[test]
    fn records_are_tensorboards() {
        let reference: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/reference/records.json")).unwrap();
        let expected = |key: &str| bytes(reference[key].as_str().unwrap());
        assert_eq!(file_version(1_700_000_000.25), expected("version"));
        let scalars = [("train/loss", Value::Scalar(0.25)), ("größe", Value::Scalar(f32::NAN))];
        assert_eq!(event(1_700_000_001.5, 300, &scalars), expected("scalars"));
        let image = Value::Image { width: 200, height: 1, png: &[1, 2, 3] };
        assert_eq!(event(1_700_000_002.0, 1 << 40, &[("filters", image)]), expected("image"));
    }
}
