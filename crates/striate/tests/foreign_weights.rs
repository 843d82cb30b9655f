//! Weights that others saved: pickles of the book, NumPy's archives, PyTorch's safetensors; and files that mean harm.

use proptest::prelude::*;
use std::path::Path;
use std::time::Instant;
use striate::data::preprocessing::{Fit, Normalization, Preprocessing};
use striate::formats::{
    ArraysError, ForeignName, ModelFile, NamedArray, NpzContents, PickleError, TestVectors, book, network_of, pytorch,
    read_npz, read_pickle, to_npz,
};
use striate::models;
use striate::network::{Network, ParameterSpec};
use striate::shape::Shape;

fn own(spec: &ParameterSpec) -> ForeignName {
    ForeignName { name: spec.name.clone(), transposed: false }
}

/// -1, -0.875, ...: what tests/pickles/make.py writes.
fn ramp(count: usize) -> Vec<f32> {
    (0..count).map(|i| i as f32 / 8.0 - 1.0).collect()
}

#[test]
fn pickles_of_every_protocol_and_numpy_hold_the_same_network() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pickles");
    let mut read = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".pkl") {
            continue;
        }
        read += 1;
        let arrays = read_pickle(&std::fs::read(&path).unwrap(), &name).unwrap_or_else(|error| panic!("{error}"));
        let shown: Vec<(&str, &[usize])> =
            arrays.iter().map(|array| (array.name.as_str(), array.shape.as_slice())).collect();
        let expected: [(&str, &[usize]); 6] =
            [("W1", &[2, 1, 3, 3]), ("b1", &[2]), ("W2", &[8, 3]), ("b2", &[3]), ("W3", &[3, 2]), ("b3", &[2])];
        assert_eq!(shown, expected, "{name}");
        assert_eq!(arrays[0].values, ramp(18), "{name}");
        assert_eq!(arrays[1].values, ramp(2), "{name}: f8");
        assert_eq!(arrays[2].values, ramp(24), "{name}: Fortran order");
        assert_eq!(arrays[3].values, ramp(3), "{name}: big-endian");
        // Every second number of a row of four.
        assert_eq!(arrays[4].values, [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25], "{name}: a slice");
        let description = book::architecture(&arrays).unwrap();
        assert_eq!((description.name.as_str(), description.input), ("simple-convnet", Shape::new(1, 6, 6)), "{name}");
        let network = network_of(description, &arrays, own, &name).unwrap();
        assert_eq!(network.parameters().get("W2").unwrap().iter().copied().collect::<Vec<_>>(), ramp(24), "{name}");
    }
    assert_eq!(read, 14);
}

#[test]
fn pickles_that_mean_harm_are_refused_by_name_and_offset() {
    let refused = |bytes: &[u8]| {
        let start = Instant::now();
        let error = read_pickle(bytes, "evil.pkl").expect_err("it was read");
        let text = error.to_string();
        assert!(text.starts_with("evil.pkl") && text.len() < 500 && start.elapsed().as_secs() < 2, "{text}");
        (error, text)
    };
    // class Evil: def __reduce__(self): return os.system, ("echo",), in protocols 0, 2 and 4.
    for (pickle, offset) in [
        (&b"cposix\nsystem\np0\n(Vecho\np1\ntp2\nRp3\n."[..], 0),
        (b"\x80\x02cposix\nsystem\nq\x00X\x04\x00\x00\x00echoq\x01\x85q\x02Rq\x03.", 2),
        (b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04echo\x94\x85\x94R\x94.", 28),
        (b"cbuiltins\neval\n(V1\ntR.", 0),
        (b"(S'x'\ncos\nsystem\nd.", 1),
        (b"cnumpy._core.multiarray\nscalar\n.", 0),
        (b"cnumpy\nndarray.__class__\n.", 0),
    ] {
        let (error, text) = refused(pickle);
        match error {
            PickleError::Global { offset: found, .. } | PickleError::Opcode { offset: found, .. } => {
                assert_eq!(found, offset, "{text}");
            }
            other => panic!("{other}"),
        }
    }
    assert!(refused(b"cposix\nsystem\n.").1.contains("posix.system"));
    // Every instruction of Python's that is not needed.
    for opcode in b"012FGPQSaeilo]\x81\x82\x83\x84\x8b\x8f\x90\x91\x92\x97\x98".iter().chain(b"\x00\x01z\xff") {
        let (error, text) = refused(&[b"}".as_slice(), &[*opcode], b"AAAAAAAA\n."].concat());
        assert!(matches!(error, PickleError::Opcode { offset: 1, opcode: found, .. } if found == *opcode), "{text}");
    }
    // A memo with places up to 2^32, lengths of 2^63, no end of marks, tuples of tuples.
    refused(b"}r\xff\xff\xff\xffj\xfe\xff\xff\xff.");
    for counted in [
        &b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f"[..],
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
        b"B\xff\xff\xff\xff",
        b"X\xff\xff\xff\xff",
    ] {
        assert!(matches!(refused(counted).0, PickleError::Truncated { .. }));
    }
    refused(&b"(".repeat(50 << 20));
    refused(&b"N".repeat(50 << 20));
    refused(&[b")".as_slice(), &b"\x85".repeat(3 << 20)].concat());
    refused(&[b"Nq\x00".as_slice(), &b"h\x00".repeat(10 << 20)].concat());
    refused(b"");
    refused(b".");
    refused(b"N.");
    refused(b"]q\x00.");
    refused(b"}(X\x01\x00\x00\x00au.");
    refused(b"}X\x01\x00\x00\x00aN\x73.");
    refused(b"\x80\x06}.");
    // A call that says it is an array, with a state of nothing.
    refused(b"}V1\ncnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nI0\nttRs.");
}

/// `_frombuffer(bytes, dtype, shape, order)` of protocol 5, the bytes remembered as 0 and the dtype as 1.
fn array_of_remembered(key: &str, shape: &[u8], order: &str) -> Vec<u8> {
    let mut text = format!("V{key}\ncnumpy._core.numeric\n_frombuffer\n(g0\ng1\n(").into_bytes();
    shape.iter().for_each(|size| text.extend([b'K', *size]));
    text.extend(format!("tV{order}\ntRs").bytes());
    text
}

fn with_remembered(bytes: &[u8], code: &str) -> Vec<u8> {
    let mut text = b"\x8e".to_vec();
    text.extend((bytes.len() as u64).to_le_bytes());
    text.extend(bytes);
    text.extend(format!("p0\ncnumpy\ndtype\n(V{code}\nI00\nI01\ntRp1\n}}").bytes());
    text
}

#[test]
fn arrays_of_pickles_are_as_long_as_they_say() {
    let pickle = |bytes: &[u8], code: &str, shape: &[u8], order: &str| {
        let text = [with_remembered(bytes, code), array_of_remembered("W1", shape, order), b".".to_vec()].concat();
        read_pickle(&text, "p").map_err(|error| error.to_string())
    };
    let six: Vec<u8> = ramp(6).iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(pickle(&six, "f4", &[2, 3], "C").unwrap()[0].values, ramp(6));
    assert_eq!(pickle(&six, "f4", &[2, 3], "F").unwrap()[0].values, [-1.0, -0.75, -0.5, -0.875, -0.625, -0.375]);
    for (code, shape, part) in [
        ("f4", &[2, 4][..], "24 bytes"),
        ("f8", &[2, 3], "24 bytes"),
        ("f4", &[255; 8], "24 bytes"),
        ("f4", &[1; 9], "9 axes"),
        ("i8", &[3], "\"i8\""),
        ("O", &[3], "\"O\""),
    ] {
        let message = pickle(&six, code, shape, "C").unwrap_err();
        assert!(message.contains(part), "{message}");
    }
    // 2^64 numbers in all, and a product that overflows to what is there.
    assert!(pickle(&[], "f4", &[0, 255, 255], "C").unwrap()[0].values.is_empty());
    // The same megabyte named ten thousand times.
    let mut text = with_remembered(&vec![0; 1 << 20], "f4");
    for entry in 0..10_000 {
        // [64, 64, 64] numbers of 4 bytes.
        text.extend(array_of_remembered(&format!("W{entry}"), &[64, 64, 64], "C"));
    }
    text.push(b'.');
    let start = Instant::now();
    let message = read_pickle(&text, "bomb").unwrap_err().to_string();
    assert!(message.contains("4 times as long as the file") && start.elapsed().as_secs() < 2, "{message}");
    // A key of a kilobyte and an array of no numbers, named a hundred thousand times.
    let array = array_of_remembered(&"W".repeat(1000), &[0], "C");
    let mut text = [with_remembered(&[], "f4"), b"(".to_vec(), array[..1002].to_vec(), b"p2\n".to_vec()].concat();
    text.extend([&array[1002..array.len() - 1], b"p3\nu"].concat());
    text.extend(b"g2\ng3\ns".repeat(100_000));
    text.push(b'.');
    let message = read_pickle(&text, "bomb").unwrap_err().to_string();
    assert!(message.contains("4 times as long as the file"), "{message}");
}

#[test]
fn a_long_tuple_can_be_a_state_again_and_again() {
    // A dtype, and a state of 200,000 parts that it is given as often.
    let mut text = b"cnumpy\ndtype\n(Vf4\ntRp0\n(I3\nV<\n".to_vec();
    text.extend(b"h\x00".repeat(200_000));
    text.extend(b"tq\x01b");
    text.extend(b"h\x01b".repeat(200_000));
    text.push(b'.');
    let start = Instant::now();
    let message = read_pickle(&text, "long").unwrap_err().to_string();
    assert!(message.contains("not a dictionary") && start.elapsed().as_secs() < 2, "{message}");
}

#[test]
fn every_cut_of_a_pickle_is_refused() {
    for name in ["numpy2-protocol0.pkl", "numpy1-protocol2.pkl", "numpy2-protocol5.pkl"] {
        let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pickles").join(name)).unwrap();
        for length in 0..bytes.len() {
            assert!(read_pickle(&bytes[..length], name).is_err(), "{name} cut to {length}");
        }
    }
}

#[test]
fn an_archive_has_one_end() {
    // Sixty thousand entries the last of which is none, and a megabyte of ends that all ask for them.
    let mut entry = b"PK\x01\x02".to_vec();
    entry.resize(46, 0);
    let mut archive = entry.repeat(60_000);
    let count = 60_001u16.to_le_bytes();
    let end = [&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &(archive.len() as u32).to_le_bytes(), &[0; 6]].concat();
    archive.extend(end.repeat(50_000));
    let start = Instant::now();
    let message = read_npz(&archive, "ends.npz").unwrap_err().to_string();
    assert!(message.contains("more than 16 places") && start.elapsed().as_secs() < 2, "{message}");
}

fn model() -> ModelFile {
    let input = Shape::new(3, 12, 12);
    let network = Network::new(models::by_name("simple-convnet", input, 3).unwrap(), 1).unwrap();
    let normalization = Normalization::new(vec![0.5, 0.25, 0.125], vec![0.3], 3).unwrap();
    let preprocessing = Preprocessing::new(input, Fit::Stretch, normalization).unwrap();
    ModelFile {
        class_names: vec!["고양이".into(), "dog \"rex\"".into(), String::new()],
        training: serde_json::json!({ "epochs": 20 }),
        metrics: serde_json::json!({ "test_accuracy": 0.75 }),
        test_vectors: TestVectors::of_noise(2, &preprocessing).unwrap().recorded(&network).unwrap(),
        preprocessing,
        temperature: None,
        quantized: None,
        network,
    }
}

#[test]
fn an_archive_holds_the_whole_model() {
    let model = model();
    let archive = to_npz(&model).unwrap();
    let NpzContents::Model(read) = read_npz(&archive, "model.npz").unwrap() else { panic!("no metadata") };
    // The same model always gives the same file.
    assert_eq!(read.to_bytes().unwrap(), model.to_bytes().unwrap());
    assert!(read.verify().unwrap().is_passed());
    assert_eq!(to_npz(&read).unwrap(), archive);
}

/// A ZIP archive of these entries, pressed.
fn zipped(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    use std::io::Write;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, contents) in entries {
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        archive.start_file(*name, options).unwrap();
        archive.write_all(contents).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn npy(descr: &str, order: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let head = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00".as_slice(), &(head.len() as u16).to_le_bytes(), head.as_bytes(), values].concat()
}

#[test]
fn archives_of_others_are_read() {
    let f4: Vec<u8> = ramp(6).iter().flat_map(|value| value.to_le_bytes()).collect();
    let f8: Vec<u8> = ramp(6).iter().flat_map(|value| f64::from(*value).to_be_bytes()).collect();
    let archive = zipped(&[
        ("W1.npy", npy("<f4", "False", "(2, 3)", &f4)),
        ("W2.npy", npy(">f8", "True", "(2, 3)", &f8)),
        ("one.npy", npy("<f4", "False", "()", &f4[..4])),
        ("bytes.npy", npy("|u1", "False", "(3,)", &[1, 2, 255])),
    ]);
    let NpzContents::Arrays(arrays) = read_npz(&archive, "theirs.npz").unwrap() else { panic!("no model") };
    let find = |name: &str| arrays.iter().find(|array| array.name == name).unwrap();
    assert_eq!((find("W1").shape.as_slice(), &find("W1").values), (&[2, 3][..], &ramp(6)));
    assert_eq!(find("W2").values, [-1.0, -0.75, -0.5, -0.875, -0.625, -0.375]);
    assert_eq!((find("one").shape.len(), find("one").values.as_slice()), (0, &[-1.0][..]));
    assert_eq!(find("bytes").values, [1.0, 2.0, 255.0]);
}

#[test]
fn archives_that_mean_harm_are_refused() {
    let refused = |bytes: &[u8], part: &str| {
        let start = Instant::now();
        let text = read_npz(bytes, "evil.npz").expect_err("it was read").to_string();
        assert!(text.starts_with("evil.npz") && text.contains(part), "{part}: {text}");
        assert!(text.len() < 600 && start.elapsed().as_secs() < 2, "{:?}: {text}", start.elapsed());
    };
    let whole = zipped(&[("W1.npy", npy("<f4", "False", "(2, 3)", &[0; 24]))]);
    refused(b"", "no NumPy archive");
    refused(b"PK\x03\x04", "no NumPy archive");
    refused(&whole[..whole.len() - 1], "");
    refused(&zipped(&[("a.txt", vec![])]), "a.txt");
    let one = |contents: Vec<u8>, part: &str| refused(&zipped(&[("W1.npy", contents)]), part);
    one(vec![], "ends early");
    one(b"GIF89a....".to_vec(), "does not begin");
    one(npy("<f4", "False", "(2, 3)", &[0; 23]), "23 bytes");
    one(npy("<f4", "False", "(1152921504606846976,)", &[0; 24]), "1152921504606846976");
    one(npy("<f4", "False", "(4294967296, 4294967296)", &[]), "4294967296");
    one(npy("<f4", "False", "(99999999999999999999,)", &[]), "not understood");
    one(npy("<f4", "False", "(1,1,1,1,1,1,1,1,1)", &[0; 4]), "9 axes");
    one(npy("|O", "False", "(3,)", &[0; 24]), "|O");
    one(npy("<i8", "False", "(3,)", &[0; 24]), "<i8");
    one(npy("<U18446744073709551615", "False", "()", &[0; 24]), "");
    one(npy(&"(".repeat(5000), "False", "(3,)", &[]), "");
    one([b"\x93NUMPY\x02\x00".as_slice(), &u32::MAX.to_le_bytes()].concat(), "4294967295");
    one([b"\x93NUMPY\x09\x00\x00\x00".as_slice()].concat(), "version 9");
    // 400 MB of zeros in 400 kB.
    refused(&zipped(&[("W1.npy", npy("<f4", "False", "(100000000,)", &vec![0; 400_000_000]))]), "20 times as long");
    for metadata in ["", "{", "[]", r#"{"striate.version":"2"}"#, r#"{"a":1}"#] {
        let letters: Vec<u8> = metadata.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        let text = npy(&format!("<U{}", metadata.len()), "False", "()", &letters);
        refused(&zipped(&[("striate.metadata.npy", text)]), "");
    }
    // Any flipped bit is an error or changes nothing that is read: the archive has a checksum of each array.
    let archive = to_npz(&model()).unwrap();
    let NpzContents::Model(expected) = read_npz(&archive, "whole").unwrap() else { panic!("no metadata") };
    for at in (0..archive.len()).step_by(997) {
        let mut damaged = archive.clone();
        damaged[at] ^= 1 << (at % 8);
        if let Ok(NpzContents::Model(read)) = read_npz(&damaged, "damaged") {
            assert_eq!(read.to_bytes().unwrap(), expected.to_bytes().unwrap(), "a flipped bit at {at}");
        }
    }
}

/// A safetensors file as PyTorch writes it.
fn torch(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert((*name).into(), serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
        data.extend(bytes);
    }
    let header = serde_json::to_vec(&header).unwrap();
    [(header.len() as u64).to_le_bytes().as_slice(), &header, &data].concat()
}

fn le(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn tensors_of_every_width_are_read() {
    let file = torch(&[
        ("module.a", "F32", &[2], le(&[1.5, -2.0])),
        ("module.b", "F64", &[1, 1], 0.25f64.to_le_bytes().to_vec()),
        ("module.c", "F16", &[2], vec![0x00, 0x3c, 0x00, 0xc0]),
        ("module.d", "BF16", &[2], vec![0x80, 0x3f, 0x20, 0xc0]),
        ("module.bn.num_batches_tracked", "I64", &[], vec![0; 8]),
    ]);
    let found = pytorch::read_tensors(&file, "w").unwrap();
    let values: Vec<(&str, &[f32])> = found.iter().map(|a| (a.name.as_str(), a.values.as_slice())).collect();
    assert_eq!(values, [("a", &[1.5, -2.0][..]), ("b", &[0.25]), ("c", &[1.0, -2.0]), ("d", &[1.0, -2.5])]);
    let message = pytorch::read_tensors(&torch(&[("x", "I32", &[1], vec![0; 4])]), "w").unwrap_err().to_string();
    assert!(message.contains("\"x\"") && message.contains("I32"), "{message}");
    for length in 0..file.len() {
        assert!(pytorch::read_tensors(&file[..length], "w").is_err(), "cut to {length}");
    }
}

#[test]
fn everything_that_does_not_fit_is_reported_at_once() {
    let description = models::build("resnet18", &models::Request { classes: Some(4), ..Default::default() }).unwrap();
    let names = pytorch::names(&description).unwrap().unwrap();
    let naming = |spec: &ParameterSpec| names[&spec.name].clone();
    let mut arrays: Vec<NamedArray> = description
        .parameter_specs()
        .unwrap()
        .into_iter()
        .map(|spec| {
            let ForeignName { name, transposed } = naming(&spec);
            let mut shape = spec.shape.clone();
            if transposed {
                shape.reverse();
            }
            NamedArray { name, values: (0..spec.range.len()).map(|i| i as f32).collect(), shape }
        })
        .collect();
    assert_eq!(pytorch::classes(&description, &arrays).unwrap(), Some(4));
    let network = network_of(description.clone(), &arrays, naming, "w").unwrap();
    // (4, 512) in PyTorch is (512, 4) here: the second class's weight for the third feature.
    let weight = network.parameters().get("W41").unwrap();
    assert_eq!((weight.shape(), weight[[2, 1]]), (&[512, 4][..], 514.0));

    let place = |name: &str, arrays: &[NamedArray]| arrays.iter().position(|array| array.name == name).unwrap();
    let at = place("layer3.0.bn2.running_var", &arrays);
    arrays.remove(at);
    let at = place("conv1.weight", &arrays);
    arrays[at].shape = vec![64, 1, 7, 7];
    arrays[at].values.truncate(64 * 49);
    arrays.push(NamedArray { name: "fc2.weight".into(), shape: vec![1], values: vec![0.0] });
    let error = network_of(description.clone(), &arrays, naming, "w.safetensors").unwrap_err();
    let text = error.to_string();
    let ArraysError::Mismatch { mismatch, .. } = error else { panic!("{text}") };
    assert_eq!(mismatch.missing, [("layer3.0.bn2.running_var".into(), vec![256])]);
    assert_eq!(mismatch.unexpected, ["fc2.weight"]);
    assert_eq!(mismatch.misshaped, [("conv1.weight".into(), vec![64, 1, 7, 7], vec![64, 3, 7, 7])]);
    assert!(text.contains("1 missing, 1 unexpected, 1 mis-shaped") && text.contains("resnet18"), "{text}");
    arrays.push(arrays[0].clone());
    assert!(matches!(network_of(description, &arrays, naming, "w"), Err(ArraysError::Twice { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What bits are turned over: an error or arrays, never a panic.
    #[test]
    fn any_bytes_are_an_error_or_arrays(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        which in 0usize..4,
    ) {
        let pickles = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pickles");
        let mut bytes = match which {
            0 => std::fs::read(pickles.join("numpy2-protocol0.pkl")).unwrap(),
            1 => std::fs::read(pickles.join("numpy2-protocol5.pkl")).unwrap(),
            2 => zipped(&[("W1.npy", npy("<f4", "True", "(2, 3)", &[7; 24]))]),
            _ => torch(&[("a", "F32", &[2], le(&[1.0, 2.0])), ("b", "F16", &[1], vec![0, 60])]),
        };
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        match which {
            0 | 1 => drop(read_pickle(&bytes, "any")),
            2 => drop(read_npz(&bytes, "any")),
            _ => drop(pytorch::read_tensors(&bytes, "any")),
        }
    }
}
