#![no_main]
//! The body says what is tried.

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::run(input));

#[path = "../../engine/tests/fuzz/protocol.rs"]
mod body;
