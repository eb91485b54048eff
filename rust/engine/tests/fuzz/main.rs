//! The bodies of the fuzz targets, and the inputs that were found worth keeping as ordinary tests.
//!
//! `rust/fuzz` has the targets, which include these bodies, and the inputs: `corpus/TARGET/*`, one a file. An input that a run
//! finds to fail is put there before what it shows is mended.

use std::path::Path;
use std::time::{Duration, Instant};

mod admission;
mod json;
mod protocol;

fn corpus(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut paths: Vec<_> = folder.read_dir().expect("a corpus").map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    let slowest = Duration::from_secs(5);
    let fails = |path: &Path| {
        let input = std::fs::read(path).expect("a file");
        let start = Instant::now();
        let outcome = std::panic::catch_unwind(|| run(&input));
        outcome.is_err() || start.elapsed() > slowest
    };
    let failed: Vec<_> = paths.iter().filter(|path| fails(path)).collect();
    assert!(failed.is_empty(), "failed, or took longer than {slowest:?}: {failed:?}");
}

#[test]
fn requests_are_rejected_or_admitted() {
    corpus("admission", admission::run);
}

#[test]
fn json_is_what_serde_json_says() {
    corpus("json", json::run);
}

#[test]
fn connections_end_once_and_keep_their_promises() {
    corpus("protocol", protocol::run);
}
