//! What one input may cost, whatever it is.

use std::sync::Once;
use std::time::{Duration, Instant};

/// Bytes that are held at the same time.
const MOST_BYTES: u64 = 64 << 20;
/// A machine that is busy with something else does not upset it: the least of so many times counts.
const TIMES: usize = 3;

/// Tries an input, which must end within `longest`.
pub(crate) fn run(input: &[u8], body: fn(&[u8]), longest: Duration) {
    // What is made once counts for no input.
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| body(b"{ a }"));
    let started = Instant::now();
    let held = allocation_counter::measure(|| body(input)).bytes_max;
    assert!(held <= MOST_BYTES, "{held} bytes were held at once");
    let mut least = started.elapsed();
    for _ in 1..TIMES {
        if least <= longest {
            return;
        }
        let started = Instant::now();
        body(input);
        least = least.min(started.elapsed());
    }
    assert!(least <= longest, "it took {least:?}");
}
