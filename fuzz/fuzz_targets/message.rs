#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chordkv::fuzzing::run("message", bytes));
