#![no_main]
//! The body says what is tried, and the bounds what it may cost.

libfuzzer_sys::fuzz_target!(|input: &[u8]| bounds::run(input, body::run, std::time::Duration::from_millis(100)));

#[path = "../../engine/tests/fuzz/admission.rs"]
mod body;
#[path = "../../engine/tests/fuzz/bounds.rs"]
mod bounds;
