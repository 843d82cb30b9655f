#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| striate_fuzz::http(data));
