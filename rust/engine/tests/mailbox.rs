//! Mailboxes against a model: whatever the order of pushes, takes and ends, what is taken, dropped and told is what the
//! documentation of `mailbox` says; and with threads, nothing is lost without being counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use fraiseql_subs_engine::delivery::{Body, Capacity, End, Mailbox, Notify, Outbox, Taken};
use fraiseql_subs_engine::limits::Overflow;
use fraiseql_subs_engine::operators::{DropReason, Metrics};
use fraiseql_subs_engine::value::Value;
use proptest::prelude::*;

/// Counts how often the reader is woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Notify for Bell {
    fn notify(&self) {
        self.0.fetch_add(1, SeqCst);
    }
}

const MESSAGES: usize = 4;
const BYTES: usize = 40;
const TOGETHER: usize = 60;
const CAPACITY: Capacity = Capacity { messages: MESSAGES, bytes: BYTES, together: TOGETHER };

fn body(number: usize, size: usize) -> Arc<Body> {
    Arc::new(Body::new(format!("{number:0>size$}"), None, Instant::now()))
}

fn number(body: &Body) -> usize {
    body.json.parse().expect("the number that was pushed")
}

/// What the documentation says, in the plainest way.
#[derive(Default)]
struct Model {
    boxes: [ModelBox; 2],
    slow: bool,
}

#[derive(Default)]
struct ModelBox {
    queue: VecDeque<(usize, usize)>,
    dropped: u64,
    ended: bool,
    forbidden: bool,
    over: bool,
}

impl Model {
    fn bytes(&self) -> usize {
        self.boxes.iter().flat_map(|one| &one.queue).map(|(_, size)| size).sum()
    }

    fn fits(&self, at: usize, size: usize, overflow: Overflow) -> bool {
        let own: usize = self.boxes[at].queue.iter().map(|(_, size)| size).sum();
        let most = if overflow == Overflow::Latest { 1 } else { MESSAGES };
        self.bytes() == 0 || self.boxes[at].queue.len() < most && own + size <= BYTES && self.bytes() + size <= TOGETHER
    }

    fn push(&mut self, at: usize, number: usize, size: usize, overflow: Overflow) {
        if self.slow || self.boxes[at].ended || self.boxes[at].over {
            return;
        }
        while !self.fits(at, size, overflow) {
            if overflow == Overflow::Disconnect {
                self.slow = true;
                self.boxes[at].queue.clear();
                return;
            }
            self.boxes[at].dropped += 1;
            if overflow == Overflow::DropNewest || self.boxes[at].queue.pop_front().is_none() {
                return;
            }
        }
        self.boxes[at].queue.push_back((number, size));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push { at: usize, size: usize },
    Lost { at: usize },
    Take,
    Complete { at: usize },
    Forbid { at: usize },
    Close { at: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..2usize, 3..30usize).prop_map(|(at, size)| Step::Push { at, size }),
        1 => (0..2usize).prop_map(|at| Step::Lost { at }),
        8 => Just(Step::Take),
        1 => (0..2usize).prop_map(|at| Step::Complete { at }),
        1 => (0..2usize).prop_map(|at| Step::Forbid { at }),
        1 => (0..2usize).prop_map(|at| Step::Close { at }),
    ];
    prop::collection::vec(step, 1..80)
}

fn overflow() -> impl Strategy<Value = Overflow> {
    prop_oneof![
        Just(Overflow::Disconnect),
        Just(Overflow::DropOldest),
        Just(Overflow::DropNewest),
        Just(Overflow::Latest)
    ]
}

fn mailbox(id: &str, overflow: Overflow, outbox: &Arc<Outbox>, metrics: &Arc<Metrics>) -> Arc<Mailbox> {
    Mailbox::new(id.into(), false, overflow, None, outbox.clone(), metrics.clone())
}

proptest! {
    #[test]
    fn behaves_like_the_model(steps in steps(), overflow in overflow()) {
        let outbox = Outbox::new(CAPACITY, Arc::new(Bell::default()));
        let metrics = Arc::new(Metrics::default());
        let boxes = ["0", "1"].map(|id| mailbox(id, overflow, &outbox, &metrics));
        let mut model = Model::default();
        for (step_number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push { at, size } => {
                    boxes[at].push(body(step_number, size));
                    model.push(at, step_number, size, overflow);
                }
                Step::Lost { at } => {
                    boxes[at].lost(1, DropReason::Resolver);
                    if !model.boxes[at].ended && !model.boxes[at].over {
                        model.boxes[at].dropped += 1;
                    }
                }
                Step::Take => match outbox.take() {
                    Some((from, Taken::Next { body, dropped, gap })) => {
                        let model = &mut model.boxes[from.id.parse::<usize>().expect("0 or 1")];
                        prop_assert_eq!(model.queue.pop_front().map(|(number, _)| number), Some(number(&body)));
                        prop_assert_eq!(std::mem::take(&mut model.dropped), dropped);
                        prop_assert!(!gap);
                    }
                    Some((from, Taken::End(_))) => {
                        let model = &mut model.boxes[from.id.parse::<usize>().expect("0 or 1")];
                        prop_assert!(model.queue.is_empty() && model.ended && !model.over);
                        model.over = true;
                    }
                    None => for model in &model.boxes {
                        prop_assert!(model.queue.is_empty());
                        prop_assert!(!model.ended || model.over);
                    },
                },
                Step::Complete { at } | Step::Forbid { at } => {
                    let forbid = matches!(step, Step::Forbid { .. });
                    let acted = boxes[at].end(if forbid { End::Revoked } else { End::Complete });
                    let model = &mut model.boxes[at];
                    // What was completed can still be taken back.
                    prop_assert_eq!(acted, !model.over && (!model.ended || forbid && !model.forbidden));
                    if acted && forbid {
                        model.queue.clear();
                        model.forbidden = true;
                    }
                    model.ended = true;
                }
                Step::Close { at } => {
                    let left = boxes[at].close();
                    let model = &mut model.boxes[at];
                    prop_assert_eq!(left, model.queue.len());
                    model.queue.clear();
                    model.over = true;
                }
            }
            prop_assert_eq!(outbox.is_slow(), model.slow);
            prop_assert_eq!(outbox.bytes(), model.bytes());
            let gauge = |name| metrics.to_value().get(name).map(Value::to_json);
            let waiting: usize = model.boxes.iter().map(|model| model.queue.len()).sum();
            prop_assert_eq!(gauge("queued_messages"), Some(waiting.to_string()));
            prop_assert_eq!(gauge("queued_bytes"), Some(model.bytes().to_string()));
            for (real, model) in boxes.iter().zip(&model.boxes) {
                prop_assert_eq!(real.waiting(), model.queue.len());
            }
        }
    }
}

#[test]
fn a_burst_wakes_its_reader_once() {
    let bell = Arc::new(Bell::default());
    let outbox = Outbox::new(Capacity { together: 1 << 20, ..CAPACITY }, bell.clone());
    let mailbox = mailbox("0", Overflow::DropOldest, &outbox, &Arc::default());
    for number in 0..3 {
        mailbox.push(body(number, 3));
    }
    assert_eq!(bell.0.load(SeqCst), 1);
    outbox.listen();
    while outbox.take().is_some() {}
    mailbox.push(body(3, 3));
    assert_eq!(bell.0.load(SeqCst), 2);
}

#[test]
fn with_threads_nothing_is_lost_uncounted() {
    const EACH: usize = 20_000;
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Latest] {
        let outbox = Outbox::new(CAPACITY, Arc::new(Bell::default()));
        let metrics = Arc::new(Metrics::default());
        let boxes = ["0", "1"].map(|id| mailbox(id, overflow, &outbox, &metrics));
        let (mut taken, mut told, mut last) = ([0usize; 2], [0u64; 2], [None; 2]);
        std::thread::scope(|scope| {
            let pushers = boxes.each_ref().map(|one| {
                scope.spawn(move || {
                    for number in 0..EACH {
                        one.push(body(number, 6));
                    }
                })
            });
            let mut take = || {
                while let Some((from, Taken::Next { body, dropped, .. })) = outbox.take() {
                    let at: usize = from.id.parse().expect("0 or 1");
                    let number = number(&body);
                    assert!(last[at].is_none_or(|last| number > last), "in order");
                    last[at] = Some(number);
                    taken[at] += 1;
                    told[at] += dropped;
                }
            };
            while pushers.iter().any(|pusher| !pusher.is_finished()) {
                take();
            }
            take();
        });
        // A last message each, which carries what has not been told yet.
        for at in 0..2 {
            boxes[at].push(body(EACH, 6));
            while let Some((_, Taken::Next { dropped, .. })) = outbox.take() {
                taken[at] += 1;
                told[at] += dropped;
            }
            assert_eq!(taken[at] as u64 + told[at], EACH as u64 + 1, "{overflow:?}");
        }
        assert_eq!(outbox.bytes(), 0);
    }
}
