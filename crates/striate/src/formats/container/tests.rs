use super::*;
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn small() -> Vec<u8> {
    let (w, b) = ([1.5, -0.0, f32::MIN_POSITIVE / 2.0, f32::MAX, 1e-45, -3.0], [0.25]);
    let mut writer = ContainerWriter::new();
    writer.field("striate.version", "1").unwrap();
    writer.field("note", "quotes \" and \\ and 한글 and \"striate.checksum\":\"0\"").unwrap();
    writer.tensor("W1", &[2, 3], &w).unwrap();
    writer.tensor("b1", &[1], &b).unwrap();
    writer.tensor("nothing", &[0, 7], &[]).unwrap();
    writer.tensor("one", &[], &b).unwrap();
    writer.to_bytes().unwrap()
}

/// A file of any header and data with the checksum that its header asks for: 64 zeros are replaced by it.
fn seal(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    let digits = hex(&Sha256::digest(&bytes));
    if let Some(at) = place_of_checksum(&bytes, &"0".repeat(DIGITS)) {
        bytes[at..at + DIGITS].copy_from_slice(digits.as_bytes());
    }
    bytes
}

fn metadata() -> String {
    format!("\"__metadata__\":{{\"{CHECKSUM}\":\"{}\"}}", "0".repeat(DIGITS))
}

fn refusal(bytes: &[u8]) -> FormatError {
    Container::from_bytes(bytes, "the file").unwrap_err()
}

#[test]
fn every_bit_comes_back() {
    let bytes = small();
    let container = Container::from_bytes(&bytes, "small").unwrap();
    assert_eq!(container.names().collect::<Vec<_>>(), ["W1", "b1", "nothing", "one"]);
    assert_eq!(container.shape("W1").unwrap(), [2, 3]);
    assert_eq!(container.shape("one").unwrap(), [0usize; 0]);
    let mut values = [0.0; 6];
    container.read("W1", &mut values).unwrap();
    let bits = values.map(f32::to_bits);
    assert_eq!(bits, [1.5, -0.0, f32::MIN_POSITIVE / 2.0, f32::MAX, 1e-45, -3.0].map(f32::to_bits));
    container.read("nothing", &mut []).unwrap();
    assert_eq!(container.field("note"), Some("quotes \" and \\ and 한글 and \"striate.checksum\":\"0\""));
    assert_eq!(small(), bytes, "the same contents must give the same bytes");
}

#[test]
fn other_readers_of_safetensors_can_open_it() {
    let bytes = small();
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let w = read.tensor("W1").unwrap();
    assert_eq!((w.dtype(), w.shape()), (Dtype::F32, &[2, 3][..]));
    assert_eq!(w.data()[..4], 1.5f32.to_le_bytes());
    let (header, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header % 8, 0, "the data must be aligned");
    assert_eq!(metadata.metadata().as_ref().unwrap()["striate.version"], "1");
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = small();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let error = Container::from_bytes(&damaged, "small").map(|_| ()).expect_err("a flipped bit was not found");
            assert!(error.to_string().contains("small"), "byte {at}, bit {bit}: {error}");
        }
    }
}

#[test]
fn every_cut_and_every_addition_is_found() {
    let bytes = small();
    for length in 0..bytes.len() {
        refusal(&bytes[..length]);
    }
    assert!(matches!(refusal(&bytes[..bytes.len() - 1]), FormatError::Truncated { .. }));
    assert!(matches!(refusal(&bytes[..bytes.len() / 2]), FormatError::Truncated { .. }));
    let longer = [&bytes[..], b"\0"].concat();
    assert!(matches!(refusal(&longer), FormatError::TooLong { .. }));
}

#[test]
fn damage_in_the_data_is_called_damage() {
    let mut bytes = small();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x80;
    let error = refusal(&bytes);
    assert!(matches!(error, FormatError::Damaged { .. }));
    assert!(error.to_string().starts_with("the file is damaged: its contents have the SHA-256 "), "{error}");
}

#[test]
fn spaces_that_pad_the_header_count() {
    let header = format!("{{{}}}  ", metadata());
    let mut bytes = seal(&header, b"");
    Container::from_bytes(&bytes, "padded").unwrap();
    let last = bytes.len() - 1;
    bytes[last] = b'\n';
    assert!(matches!(refusal(&bytes), FormatError::Damaged { .. }));
}

#[test]
fn other_files_are_told_apart() {
    assert!(refusal(b"").to_string().contains("it is empty"));
    assert!(refusal(b"abc").to_string().contains("only 3 bytes"));
    assert!(refusal(b"PK\x03\x04 and so on").to_string().contains("zip archive"));
    assert!(matches!(refusal(b"\x89PNG\r\n\x1a\n and so on"), FormatError::NotSafetensors { .. }));
    let foreign = safetensors::serialize(
        [("weight", safetensors::tensor::TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap())],
        None,
    )
    .unwrap();
    let error = refusal(&foreign);
    assert!(matches!(error, FormatError::Foreign { tensors: 1, .. }));
    assert!(error.to_string().contains("no architecture"), "{error}");
    let stripped = seal(r#"{"__metadata__":{"striate.version":"1"}}"#, b"");
    assert!(matches!(refusal(&stripped), FormatError::Header { .. }));
}

#[test]
fn hostile_headers_with_a_right_checksum_are_refused() {
    let tensor = |body: &str| format!("{{{},\"W\":{{{body}}}}}", metadata());
    let four = b"\0\0\0\0";
    let good = tensor(r#""dtype":"F32","shape":[1],"data_offsets":[0,4]"#);
    Container::from_bytes(&seal(&good, four), "good").unwrap();
    for (what, header) in [
        ("shape larger than the data", tensor(r#""dtype":"F32","shape":[2],"data_offsets":[0,4]"#)),
        ("offsets beyond the data", tensor(r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#)),
        ("a gap", tensor(r#""dtype":"F32","shape":[0],"data_offsets":[4,4]"#)),
        ("offsets backwards", tensor(r#""dtype":"F32","shape":[1],"data_offsets":[4,0]"#)),
        ("negative sizes", tensor(r#""dtype":"F32","shape":[-1],"data_offsets":[0,4]"#)),
        ("sizes that overflow", tensor(r#""dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]"#)),
        (
            "offsets at the end of all numbers",
            tensor(r#""dtype":"F32","shape":[4611686018427387903],"data_offsets":[0,18446744073709551612]"#),
        ),
        ("an unknown type", tensor(r#""dtype":"F31","shape":[1],"data_offsets":[0,4]"#)),
        ("a missing field", tensor(r#""dtype":"F32","shape":[1]"#)),
        ("nine axes", tensor(r#""dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]"#)),
        ("half a byte", tensor(r#""dtype":"F4","shape":[7],"data_offsets":[0,4]"#)),
        (
            "two of a name",
            format!("{},\"W\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,4]}}}}", &good[..good.len() - 1]),
        ),
        ("two metadata blocks", format!("{{{},{}}}", metadata(), metadata())),
        ("two checksums", format!("{{{},\"{CHECKSUM}\":\"\"}}}}", &metadata()[..metadata().len() - 1])),
        ("no object", format!("{{{}}}]", metadata())),
        ("deep nesting", format!("{{{},\"W\":{}", metadata(), "[".repeat(1_000_000))),
        ("a number as metadata", "{\"__metadata__\":{\"striate.version\":1}}".to_string()),
    ] {
        let error = Container::from_bytes(&seal(&header, four), "hostile").map(|_| ()).expect_err(what);
        assert!(error.to_string().len() < 600, "{what}: {error}");
    }
}

#[test]
fn a_tensor_of_another_type_is_named() {
    let header = format!("{{{},\"W\":{{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[0,4]}}}}", metadata());
    let bytes = seal(&header, b"\0\0\0\0");
    let container = Container::from_bytes(&bytes, "the file").unwrap();
    let error = container.read("W", &mut [0.0]).unwrap_err();
    assert_eq!(error.to_string(), "the file, tensor \"W\": the numbers are I32; expected F32");
    assert!(matches!(container.shape("V"), Err(FormatError::MissingTensor { .. })));
}

#[test]
fn a_length_in_the_stars_takes_no_memory() {
    for claim in [u64::MAX, u64::MAX - 7, 1 << 40, MAX_HEADER_BYTES as u64 + 1, 0, 1] {
        let mut bytes = claim.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        assert!(matches!(refusal(&bytes), FormatError::Header { .. }), "{claim}");
    }
    let mut bytes = (MAX_HEADER_BYTES as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(b"{}");
    assert!(matches!(refusal(&bytes), FormatError::Truncated { .. }));
}

#[test]
fn headers_as_large_as_allowed_are_refused_quickly() {
    let fill = |start: &str, piece: &dyn Fn(usize) -> String| {
        let mut header = start.to_string();
        for i in 0.. {
            let next = piece(i);
            if header.len() + next.len() > MAX_HEADER_BYTES {
                return header;
            }
            header.push_str(&next);
        }
        header
    };
    let numbers = format!("{{{},\"W\":{{\"dtype\":\"F32\",\"shape\":[0", metadata());
    for header in [
        fill(&numbers, &|_| ",0".into()),
        fill(&format!("{{{}", metadata()), &|i| {
            format!(",\"{i}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}")
        }),
        fill("{\"__metadata__\":{\"a\":\"\"", &|i| format!(",\"{i}\":\"\"")),
        fill(&format!("{{{},\"", metadata()), &|_| "x".into()),
        fill("{", &|_| " ".into()),
    ] {
        let start = Instant::now();
        assert!(refusal(&seal(&header, b"")).to_string().len() < 600);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[test]
fn what_a_reader_would_refuse_is_not_written() {
    let mut writer = ContainerWriter::new();
    writer.field("a", "1").unwrap();
    assert!(writer.field("a", "2").is_err());
    assert!(writer.field(CHECKSUM, "2").is_err());
    assert!(writer.tensor("__metadata__", &[0], &[]).is_err());
    assert!(writer.tensor("W", &[2], &[1.0]).is_err());
    assert!(writer.tensor("W", &[usize::MAX, 2], &[1.0]).is_err());
    assert!(writer.tensor("W", &[1; 9], &[1.0]).is_err());
    writer.tensor("W", &[1; 8], &[1.0]).unwrap();
    assert!(writer.tensor("W", &[1], &[1.0]).is_err());
    writer.field("long", "x".repeat(MAX_HEADER_BYTES)).unwrap();
    assert!(matches!(writer.to_bytes(), Err(FormatError::Unwritable { .. })));
}

#[test]
fn files_are_read_as_bytes_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("small.safetensors");
    std::fs::write(&path, small()).unwrap();
    assert_eq!(read_file(&path).unwrap(), small());
    // What can be seen from the header alone is refused before the rest is read.
    std::fs::write(&path, &small()[..small().len() - 4]).unwrap();
    assert!(matches!(read_file(&path), Err(FormatError::Truncated { .. })));
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(read_file(&path), Err(FormatError::NotSafetensors { .. })));
    let error = read_file(&directory.path().join("none")).unwrap_err();
    assert!(error.to_string().ends_with("; check the path"), "{error}");
    let error = read_file(directory.path()).unwrap_err();
    assert!(error.to_string().contains("is a directory, not a model file"), "{error}");
}

#[test]
fn huge_files_are_refused_quickly() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sparse");
    let sparse = |start: &[u8], length: u64| {
        std::fs::write(&path, start).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        let begun = Instant::now();
        (read_file(&path).unwrap_err(), begun.elapsed())
    };
    let at_once = |(error, elapsed): (FormatError, Duration)| {
        assert!(elapsed < Duration::from_secs(2), "{elapsed:?}: {error}");
        error
    };
    assert!(matches!(at_once(sparse(b"", MAX_FILE_BYTES + 1)), FormatError::TooLarge { .. }));
    assert!(matches!(at_once(sparse(b"", MAX_FILE_BYTES)), FormatError::NotSafetensors { .. }));
    assert!(matches!(at_once(sparse(&small(), MAX_FILE_BYTES)), FormatError::TooLong { .. }));
    // A header that fits a large file, which then holds the wrong numbers: found without holding the file, though
    // every byte of it must be looked at.
    let bytes = CHECK_FIRST_BYTES;
    let header = format!(
        "{{{},\"W\":{{\"dtype\":\"F32\",\"shape\":[{}],\"data_offsets\":[0,{bytes}]}}}}",
        metadata(),
        bytes / 4
    );
    let start = seal(&header, b"");
    let length = start.len() as u64 + bytes;
    assert!(matches!(sparse(&start, length).0, FormatError::Damaged { .. }));
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&pipe, Path::new("/dev/zero"), Path::new("/dev/null")] {
        assert!(matches!(read_file(path), Err(FormatError::NotAFile { .. })), "{}", path.display());
    }
}

proptest! {
    #[test]
    fn any_values_come_back_bit_for_bit(
        tensors in prop::collection::btree_map("[a-zA-Z0-9._\"\\\\ -]{0,12}", prop::collection::vec(any::<u32>(), 0..40), 0..6),
        fields in prop::collection::btree_map("\\PC{0,12}", "\\PC{0,40}", 0..6),
    ) {
        let tensors: BTreeMap<String, Vec<f32>> =
            tensors.into_iter().map(|(k, v)| (k, v.into_iter().map(f32::from_bits).collect())).collect();
        let mut writer = ContainerWriter::new();
        for (key, value) in &fields {
            writer.field(key, value).unwrap();
        }
        for (name, values) in &tensors {
            writer.tensor(name, &[values.len()], values).unwrap();
        }
        let bytes = writer.to_bytes().unwrap();
        let container = Container::from_bytes(&bytes, "any").unwrap();
        for (key, value) in &fields {
            prop_assert_eq!(container.field(key), Some(value.as_str()));
        }
        for (name, values) in &tensors {
            let mut found = vec![0.0; values.len()];
            container.read(name, &mut found).unwrap();
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&found), bits(values));
        }
    }

    #[test]
    fn any_change_is_an_error(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let bytes = small();
        let mut damaged = bytes.clone();
        for (at, byte) in changes {
            damaged[at.index(bytes.len())] = byte;
        }
        prop_assert_eq!(Container::from_bytes(&damaged, "any").is_ok(), damaged == bytes);
    }

    #[test]
    fn any_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Container::from_bytes(&bytes, "any").is_err());
    }

    #[test]
    fn any_header_with_a_right_checksum_is_no_panic(
        at in any::<prop::sample::Index>(),
        piece in prop::sample::select(vec!["", "0", "-1", "\"", "{", "}", "[", "]", ",", ":", "null", "1e999", "18446744073709551615"]),
        remove in 0usize..6,
    ) {
        let header = format!(
            "{{{},\"W\":{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}}}", metadata());
        let at = at.index(header.len());
        let end = (at + remove).min(header.len());
        let changed = format!("{}{piece}{}", &header[..at], &header[end..]);
        if let Ok(container) = Container::from_bytes(&seal(&changed, b"\0\0\0\0"), "any") {
            for name in container.names() {
                let _ = container.read(name, &mut [0.0]);
            }
        }
    }
}
