use proptest::prelude::*;
use serde_json::json;

use super::super::shelf::SHELF_BYTES;
use super::*;
use crate::admission::is_routed;
use crate::bus::{EventBus, MemoryBus, Published};
use crate::event::Audience;
use crate::matching::Verdict;
use crate::predicate::{Expr, Predicate};
use crate::security::federation::Sources;
use crate::value::Value;
use crate::viewer::Viewer;

/// Of a tenant (the last is all of them), with this `n`, perhaps with a source, and of the type that some ask for or another.
type Made = (usize, i64, bool, bool);

fn event(channel: &str, (tenant, n, has_source, is_asked_for): Made) -> Event {
    Event {
        id: Event::new_id(),
        event_type: if is_asked_for { "e" } else { "g" }.into(),
        channel: channel.into(),
        audience: if tenant == 2 { Audience::All } else { Audience::Tenant(named(tenant)) },
        source: has_source.then(|| "s".into()),
        published_at: chrono::Utc::now(),
        data: Value::Object([("n".into(), Value::Int(n))].into_iter().collect()),
        size: 7,
        previous: None,
        position: Position::default(),
    }
}

fn named(tenant: usize) -> Option<Arc<str>> {
    (tenant == 1).then(|| "a".into())
}

/// What an index finds by its key, what it has to ask, what its modules withhold, and what is for everybody.
fn asked(kind: usize, number: i64) -> (Condition, Questions) {
    let bind = |comparison: &str| {
        let expr: Expr = serde_json::from_value(json!([comparison, ["data", ["n"]], ["literal", number]])).unwrap();
        Predicate::compile(&expr, &|_, _| None).unwrap().bind(&Value::Null, &Viewer::default())
    };
    let (where_, rows) = [
        (Some("=="), None),
        (Some(">"), None),
        (None, Some("==")),
        (None, Some(">")),
        (Some("<"), Some("==")),
        (Some(">"), Some(">=")),
        (None, None),
    ][kind % 7];
    let types = kind.is_multiple_of(3).then(|| ["e".to_owned(), "f".to_owned()]);
    let types = types.as_ref().map(|types| &types[..]);
    let sources = if kind < 7 { Sources::Any } else { Sources::Only(Arc::new(vec!["s".into()])) };
    let condition = Condition::new(0, types, sources, where_.map(bind), rows.map(bind));
    let questions = Questions::new(&condition, types, || where_.map(bind), rows.is_some());
    (condition, questions)
}

struct One {
    tenant: Option<Arc<str>>,
    kind: (usize, i64),
    cursor: Offset,
    expected: VecDeque<Offset>,
    withheld: Withheld,
    reader: Option<Reader>,
}

proptest! {
    /// Readers who begin anywhere, go and come again, and take turns in any order, are given what they missed and was for them: once, in
    /// order, without a hole; and what was withheld from them is counted as it is where they are alone.
    #[test]
    fn everybody_reads_everything(
        published in prop::collection::vec((any::<bool>(), (0usize..3, 0i64..40, any::<bool>(), any::<bool>())), 1..400),
        readers in prop::collection::vec((0u64..400, 0usize..2, 0usize..14, 0i64..40), 1..60),
        turns in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 0..400),
        is_full in prop::bool::weighted(0.1),
    ) {
        let bus: Arc<dyn EventBus> = Arc::new(MemoryBus::new(10_000));
        for (own, made) in &published {
            let published = bus.publish(vec![event(if *own { "own" } else { "other" }, *made)]);
            prop_assert!(matches!(published, Published::Now));
        }
        let end = bus.position().unwrap();
        let shelf = Shelf::new(bus);
        let _filling = is_full.then(|| shelf.weigh(SHELF_BYTES + 1));
        let past = Past::new("own".into(), shelf);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut all: Vec<One> = readers.into_iter().map(|(start, tenant, kind, number)| {
            let (condition, _) = asked(kind, number);
            let mut one = One {
                tenant: named(tenant), kind: (kind, number), cursor: start % (end.offset + 1),
                expected: VecDeque::new(), withheld: Withheld::default(), reader: None,
            };
            for offset in (one.cursor + 1)..=end.offset {
                let (own, made) = published[offset as usize - 1];
                let event = event("own", made);
                if own && is_routed(&event, one.tenant.as_deref()) {
                    match condition.judge(&event) {
                        Verdict::Match => one.expected.push_back(offset),
                        Verdict::Sources => one.withheld.sources += 1,
                        Verdict::Rows => one.withheld.rows += 1,
                        _ => {}
                    }
                }
            }
            one
        }).collect();
        let mut counted = Withheld::default();
        let count = all.len();
        let rest = (0..count * 20).map(|turn| (turn % count, 1));
        for (at, step) in turns.iter().map(|(turn, step)| (turn.index(count), *step)).chain(rest) {
            let one = &mut all[at];
            let after = Position { offset: one.cursor, ..end };
            if step == 0 {
                one.reader = None;
            } else if after.offset < end.offset {
                let reader = one.reader.get_or_insert_with(|| {
                    let (condition, questions) = asked(one.kind.0, one.kind.1);
                    past.enter(one.tenant.as_ref(), &condition, || questions)
                });
                let excerpt = runtime.block_on(reader.read(after, 64)).unwrap();
                prop_assert!(excerpt.through > after.offset);
                for (withheld, past) in excerpt.events {
                    prop_assert_eq!(Some(past.event.position.offset), one.expected.pop_front());
                    counted += withheld;
                }
                counted += excerpt.withheld;
                one.cursor = excerpt.through;
            }
        }
        prop_assert!(all.iter().all(|one| one.cursor == end.offset && one.expected.is_empty()));
        let mut expected = Withheld::default();
        all.iter().for_each(|one| expected += one.withheld.clone());
        prop_assert_eq!(counted, expected);
        drop(all);
        prop_assert!(past.state.lock().judging.is_empty());
    }
}

/// An event is judged once for many; who looks at what was found finds his own.
#[test]
fn readers_share_the_judging() {
    const READERS: i64 = 600;
    let shelf = Shelf::new(Arc::new(MemoryBus::new(0)));
    let mut judging = Judging::default();
    let readers: Vec<_> = (0..READERS)
        .map(|number| {
            let (condition, questions) = asked(0, number);
            judging.enter(None, &condition, || questions)
        })
        .collect();
    let (mut cost, mut found) = (0, 0);
    for n in 0..100 {
        let event = event("own", (0, n * 7, false, true));
        let (mut findings, mut weight) = (Findings::default(), shelf.weigh(0));
        for (number, reader) in readers.iter().enumerate() {
            judging.seat(reader, &shelf);
            let judged = judging.judge(reader, &event, &mut findings, &mut weight);
            assert_eq!(judged.verdict == Verdict::Match, number as i64 == n * 7);
            cost += judged.cost;
            found += usize::from(judged.verdict == Verdict::Match);
        }
        assert!((1..500).contains(&weight.bytes()), "{}", weight.bytes());
    }
    assert_eq!(found, 86);
    // Three panels: the first of each judges for himself, the second asks for all of it, the others look.
    assert!(cost < 100 * (READERS as usize + 3 * 49), "{cost}");
    for reader in &readers {
        judging.leave(reader);
    }
    assert!(judging.is_empty());
    assert_eq!(shelf.bytes(), 0);
}

/// A few judge for themselves, and nothing is kept of it.
#[test]
fn a_few_need_no_panel() {
    let shelf = Shelf::new(Arc::new(MemoryBus::new(0)));
    let mut judging = Judging::default();
    let mut enter = |number| {
        let (condition, questions) = asked(0, number);
        judging.enter(None, &condition, || questions)
    };
    let readers: Vec<_> = (0..7).map(&mut enter).collect();
    let (mut findings, mut weight) = (Findings::default(), shelf.weigh(0));
    for reader in &readers {
        judging.seat(reader, &shelf);
        judging.judge(reader, &event("own", (0, 3, false, true)), &mut findings, &mut weight);
    }
    assert_eq!(shelf.bytes(), 0);
}
