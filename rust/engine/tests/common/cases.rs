//! How many cases a property is tried with.

use proptest::prelude::ProptestConfig;

pub(crate) fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = default.cases.max(500);
    // What fails is told while somebody still waits for it.
    ProptestConfig { cases, failure_persistence: None, max_shrink_time: 20_000, ..default }
}
