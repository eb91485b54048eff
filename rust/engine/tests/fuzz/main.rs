//! The bodies of the fuzz targets, and the inputs that were found worth keeping as ordinary tests.
//!
//! `rust/fuzz` has the targets, which include these bodies, and the inputs: `corpus/TARGET/*`, one a file. An input that a run
//! finds to fail is put there before what it shows is mended.

use std::path::Path;
use std::time::Duration;

mod admission;
mod bounds;
mod json;
mod protocol;

/// The targets allow a tenth of it, as they are optimised.
const LONGEST: Duration = Duration::from_secs(1);

fn corpus(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut paths: Vec<_> = folder.read_dir().expect("a corpus").map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    let fails = |path: &Path| {
        let input = std::fs::read(path).expect("a file");
        std::panic::catch_unwind(|| bounds::run(&input, run, LONGEST)).is_err()
    };
    let failed: Vec<_> = paths.iter().filter(|path| fails(path)).collect();
    assert!(failed.is_empty(), "failed, or took more than they may: {failed:?}");
}

#[test]
fn an_input_that_takes_too_much_is_found() {
    let passes = |body: fn(&[u8]), longest| std::panic::catch_unwind(|| bounds::run(b"", body, longest)).is_ok();
    assert!(passes(|_| drop(vec![1_u8; 1 << 20]), LONGEST));
    assert!(!passes(|_| drop(vec![1_u8; 65 << 20]), LONGEST));
    assert!(!passes(|_| drop(vec![1_u8; 1 << 20]), Duration::ZERO));
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
