//! The images of a request: files as they are, in a form, or in JSON.

use super::refusal::Refusal;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use striate::data::Preprocessing;
use striate::shape::Shape;

/// One image as it was sent.
#[derive(Debug)]
pub(super) enum Sent {
    /// An image file.
    File {
        /// What to call it.
        name: String,
        bytes: Bytes,
    },
    /// Brightness from 0 to 255, at the network's size.
    Pixels(Vec<u8>),
}

/// The images of a body, in order.
pub(super) async fn images(
    headers: &HeaderMap,
    body: Bytes,
    shape: Shape,
    most: usize,
) -> Result<(Vec<Sent>, bool), Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if body.is_empty() {
        return Err(Refusal::bad("the body is empty; send an image file, a form with files, or JSON"));
    }
    let (images, many) = match kind.as_str() {
        "multipart/form-data" => (form(headers, body).await?, true),
        "application/json" => json(&body, shape, most)?,
        // Whatever it is called, its own first bytes say what it is.
        _ => (vec![Sent::File { name: "the body".into(), bytes: body }], false),
    };
    if images.is_empty() {
        return Err(Refusal::bad("there is no image in the request"));
    }
    if images.len() > most {
        return Err(Refusal::large(format!(
            "{} images are more than the {most} that a request may have",
            images.len()
        )));
    }
    Ok((images, many))
}

async fn form(headers: &HeaderMap, body: Bytes) -> Result<Vec<Sent>, Refusal> {
    let mut request = Request::new(Body::from(body));
    let kind = headers.get(header::CONTENT_TYPE).cloned().unwrap_or(HeaderValue::from_static(""));
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    let fault = |reason: String| Refusal::bad(format!("the form can't be read: {reason}"));
    let mut form = Multipart::from_request(request, &()).await.map_err(|error| fault(error.body_text()))?;
    let mut images = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|error| fault(error.body_text()))? {
        let name = field.file_name().or(field.name()).unwrap_or("a part of the form").to_owned();
        let bytes = field.bytes().await.map_err(|error| fault(error.body_text()))?;
        images.push(Sent::File { name, bytes });
    }
    Ok(images)
}

/// `{"image": ...}` or `{"images": [...]}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    image: Option<One>,
    images: Option<Vec<One>>,
}

/// A file in base64, or nested lists of numbers from 0 to 255.
enum One {
    Text(String),
    Numbers(Numbers),
}

/// Nested lists, flat, with the length of the lists on each level.
#[derive(Default)]
struct Numbers {
    values: Vec<u8>,
    /// Known from the inside out.
    lengths: Vec<Option<usize>>,
    /// How many lists the numbers are in.
    depth: Option<usize>,
}

impl Numbers {
    /// A list at this depth had so many entries.
    fn list(&mut self, depth: usize, length: usize) -> Result<(), String> {
        if self.lengths.len() <= depth {
            self.lengths.resize(depth + 1, None);
        }
        match self.lengths[depth].replace(length) {
            Some(other) if other != length => Err(format!("a list of {length} beside one of {other}")),
            _ => Ok(()),
        }
    }
}

fn json(body: &[u8], shape: Shape, most: usize) -> Result<(Vec<Sent>, bool), Refusal> {
    let expected = "{\"image\": ...} or {\"images\": [...]}, each a base64 string of an image file or nested lists of numbers \
                    from 0 to 255";
    let read: Json = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad(format!("the JSON can't be used: {error}; expected {expected}")))?;
    let (list, many) = match (read.image, read.images) {
        (Some(image), None) => (vec![image], false),
        (None, Some(images)) => (images, true),
        _ => return Err(Refusal::bad(format!("the JSON must be {expected}"))),
    };
    if list.len() > most {
        return Err(Refusal::large(format!("{} images are more than the {most} that a request may have", list.len())));
    }
    let images = list.into_iter().enumerate().map(|(k, one)| one.sent(k, shape)).collect::<Result<_, _>>()?;
    Ok((images, many))
}

impl One {
    fn sent(self, k: usize, shape: Shape) -> Result<Sent, Refusal> {
        let name = format!("image {k}");
        match self {
            One::Text(text) => {
                // As a page has it: data:image/png;base64,...
                let text = text.rsplit_once("base64,").map_or(text.as_str(), |(_, data)| data);
                let bytes = STANDARD.decode(text.trim());
                let bytes = bytes.map_err(|error| Refusal::bad(format!("{name} is not base64: {error}")))?;
                Ok(Sent::File { name, bytes: bytes.into() })
            }
            One::Numbers(Numbers { values, lengths, .. }) => {
                let lengths: Vec<usize> = lengths.into_iter().map(Option::unwrap_or_default).collect();
                let Shape { channels, height, width } = shape;
                let whole = vec![channels, height, width];
                let fits = lengths == whole
                    || lengths == [shape.len()]
                    || channels == 1 && lengths == whole[1..]
                    // What a library calls a batch of one.
                    || lengths.first() == Some(&1) && lengths[1..] == whole;
                if !fits {
                    return Err(Refusal::bad(format!(
                        "{name} has the sizes {lengths:?}, but the model takes {whole:?} (channels, height, width); for other \
                         sizes send an image file"
                    )));
                }
                Ok(Sent::Pixels(values))
            }
        }
    }
}

/// The most lists within lists: a batch of images of channels of rows.
const DEEPEST: usize = 4;

impl<'de> Deserialize<'de> for One {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneVisitor;
        impl<'de> Visitor<'de> for OneVisitor {
            type Value = One;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a base64 string or nested lists of numbers from 0 to 255")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<One, E> {
                Ok(One::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<One, A::Error> {
                let mut numbers = Numbers::default();
                Level { numbers: &mut numbers, depth: 0 }.visit_seq(list)?;
                Ok(One::Numbers(numbers))
            }
        }
        deserializer.deserialize_any(OneVisitor)
    }
}

/// What stands in a list of this depth: numbers, or lists of equal length.
struct Level<'a> {
    numbers: &'a mut Numbers,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whole numbers from 0 to 255, or lists of them")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        if *self.numbers.depth.get_or_insert(self.depth) != self.depth {
            return Err(E::custom("a number where others are in lists"));
        }
        let value = u8::try_from(value).map_err(|_| E::custom(format!("{value} is not a number from 0 to 255")))?;
        self.numbers.values.push(value);
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        if value.fract() == 0.0 && (0.0..=255.0).contains(&value) {
            return self.visit_u64(value as u64);
        }
        Err(E::custom(format!("{value} is not a whole number from 0 to 255, as pixels are")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (numbers, depth) = (self.numbers, self.depth);
        if depth >= DEEPEST {
            return Err(A::Error::custom(format!("lists are nested more than {DEEPEST} deep")));
        }
        let mut length = 0;
        while list.next_element_seed(Level { numbers, depth: depth + 1 })?.is_some() {
            length += 1;
        }
        numbers.list(depth, length).map_err(A::Error::custom)
    }
}

/// The pixels of an image, as `striate predict` reads it.
pub(super) fn pixels(sent: Sent, preprocessing: &Preprocessing, most: u64) -> Result<Vec<u8>, Refusal> {
    match sent {
        Sent::Pixels(pixels) => Ok(pixels),
        Sent::File { name, bytes } => {
            let bad = |error: striate::data::DataError| Refusal::bad(error.to_string());
            let (width, height) = Preprocessing::picture_size(&bytes, &name).map_err(bad)?;
            if u64::from(width) * u64::from(height) > most {
                let reason = format!("{name}: {width} x {height} pixels are more than the {most} that are decoded");
                return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason));
            }
            preprocessing.decode(&bytes, &name).map_err(bad)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, shape: Shape) -> Result<(Vec<Sent>, bool), String> {
        json(text.as_bytes(), shape, 3).map_err(|refusal| format!("{refusal:?}"))
    }

    #[test]
    fn nested_lists_of_the_right_sizes_are_images() {
        let grey = Shape::new(1, 2, 3);
        for text in [
            "[[1,2,3],[4,5,6]]",
            "[[[1,2,3],[4,5,6]]]",
            "[1,2,3,4,5,6]",
            "[[1.0,2,3],[4,5,6.0]]",
            "[[[[1,2,3],[4,5,6]]]]",
        ] {
            let (images, many) = read(&format!("{{\"image\": {text}}}"), grey).unwrap();
            assert!(!many && matches!(&images[..], [Sent::Pixels(pixels)] if pixels == &[1, 2, 3, 4, 5, 6]), "{text}");
        }
        let (images, many) = read("{\"images\": [[[1,2,3],[4,5,6]], \"aGk=\"]}", grey).unwrap();
        assert!(many && matches!(&images[1], Sent::File { bytes, .. } if &bytes[..] == b"hi"));
        assert!(read("{\"image\": [[[1]],[[2]],[[3]]]}", Shape::new(3, 1, 1)).is_ok());
    }

    #[test]
    fn other_json_is_refused_with_what_is_wrong() {
        let grey = Shape::new(1, 2, 2);
        for (text, part) in [
            ("{\"image\": [[1,2],[3]]}", "a list of 1 beside one of 2"),
            ("{\"image\": [[1,2],3]}", "a number where"),
            ("{\"image\": [[1,2,3],[4,5,6]]}", "[2, 3]"),
            ("{\"image\": [[1,2],[3,256]]}", "256"),
            ("{\"image\": [[1,2],[3,0.5]]}", "0.5"),
            ("{\"image\": [[1,2],[3,-1]]}", "-1"),
            ("{\"image\": [[[[[1]]]]]}", "nested"),
            ("{\"image\": []}", "[0]"),
            ("{\"image\": \"%%\"}", "base64"),
            ("{\"images\": [[1],[1],[1],[1]]}", "more than the 3"),
            ("{\"picture\": 1}", "picture"),
            ("{}", "must be"),
            ("[[1,2],[3,4]]", "images"),
            ("{\"image\": [[1,2],[3,4]]", "EOF"),
        ] {
            let error = read(text, grey).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
