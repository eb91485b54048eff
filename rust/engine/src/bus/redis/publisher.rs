//! Publishing: calls that come while one is under way go together in the next.
//!
//! One call at a time keeps the order in which publishers called. A call whose answer was lost is made again under its own id, so
//! that the server can tell that it did it already; where the server may have forgotten that, nobody knows.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::SeqCst;

use foldhash::HashMap;
use redis::{ErrorKind, RedisError};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::link::{Link, PUBLISH, SCRIPT_RIGHTS, is_answer, said};
use super::{Shared, number};
use crate::bus::{BoxFuture, BusError, wire};
use crate::event::{Event, Position};

/// Publishes that may wait.
pub(super) const WAITING: usize = 10_000;
/// Bytes of them, and events of one.
pub(super) const WAITING_BYTES: usize = 64 << 20;
pub(super) const EVENTS: usize = 100_000;
/// What one call holds, where no single publish is larger: the server does nothing else meanwhile.
const CALL_EVENTS: usize = 1_000;
const CALL_BYTES: usize = 1 << 20;

/// What one publish asks for.
pub(super) struct Job {
    pub(super) lines: Vec<Line>,
    pub(super) deadline: Instant,
    pub(super) state: Arc<AtomicU8>,
    pub(super) done: oneshot::Sender<Result<(), BusError>>,
    /// Its part of [`WAITING_BYTES`].
    pub(super) _share: OwnedSemaphorePermit,
}

/// One event.
pub(super) struct Line {
    pub(super) channel: Arc<str>,
    pub(super) text: String,
}

// Where a job is: the caller gives it up only while it waits.
const WAITS: u8 = 0;
const SENT: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Line {
    pub(super) fn new(event: &Event) -> Line {
        Line { channel: event.channel.clone(), text: wire::encode(event) }
    }
}

impl Job {
    /// A job, and its outcome, which comes before the deadline whatever happens.
    pub(super) fn new(
        lines: Vec<Line>,
        deadline: Instant,
        share: OwnedSemaphorePermit,
        place: &str,
    ) -> (Job, BoxFuture<'static, Result<(), BusError>>) {
        let (done, outcome) = oneshot::channel();
        let state = Arc::new(AtomicU8::new(WAITS));
        let (of_caller, place) = (state.clone(), place.to_owned());
        let outcome = Box::pin(async move {
            match timeout_at(deadline, outcome).await {
                Ok(Ok(outcome)) => outcome,
                // The publisher did not come to it, and will not any more.
                _ if of_caller.compare_exchange(WAITS, GIVEN_UP, SeqCst, SeqCst).is_ok() => {
                    Err(BusError::Unavailable(format!("Redis at {place} is away")))
                }
                _ => Err(unknown(&place)),
            }
        });
        (Job { lines, deadline, state, done, _share: share }, outcome)
    }

    /// Whether it is still to be sent; from then on its caller cannot give it up.
    fn take(&self) -> bool {
        Instant::now() < self.deadline && self.state.compare_exchange(WAITS, SENT, SeqCst, SeqCst).is_ok()
    }
}

fn unknown(place: &str) -> BusError {
    BusError::Unknown(format!("Redis at {place} did not answer: the event may have been accepted"))
}

/// Publishes what comes, until nobody can publish any more.
pub(super) async fn run(shared: Arc<Shared>, mut jobs: mpsc::Receiver<Job>) {
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(job) => job,
            None => match jobs.recv().await {
                Some(job) => job,
                None => return,
            },
        };
        let Some(link) = shared.link(None, first.deadline).await else { continue };
        let mut batch = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        let mut job = Some(first);
        while let Some(taken) = job.take() {
            events += taken.lines.len();
            bytes += taken.lines.iter().map(|line| line.text.len()).sum::<usize>();
            if !batch.is_empty() && (events > CALL_EVENTS || bytes > CALL_BYTES) {
                next = Some(taken);
                break;
            }
            if taken.take() {
                batch.push(taken);
            }
            job = jobs.try_recv().ok();
        }
        if !batch.is_empty() {
            let outcome = call(&shared, link, &batch).await;
            for job in batch {
                // Whoever does not wait any more has had its answer.
                _ = job.done.send(outcome.clone());
            }
        }
    }
}

async fn call(shared: &Shared, mut link: Link, batch: &[Job]) -> Result<(), BusError> {
    let Some(deadline) = batch.iter().map(|job| job.deadline).max() else { return Ok(()) };
    let lines = || batch.iter().flat_map(|job| &job.lines);
    let place = &shared.settings.place;
    let position = shared.cursors.lock().position();
    let mut call = Call::new(shared, position, lines());
    let first = link.server.clone();
    loop {
        match timeout_at(deadline, link.run::<String>(&PUBLISH, &call.args)).await {
            Ok(Ok(answer)) => {
                let accepted = answer.split_once(' ').and_then(|(epoch, offset)| {
                    Some(Position { epoch: number(epoch, 16)?, offset: number(offset, 10)? })
                });
                let Some(accepted) = accepted else { break };
                if let Some(last) = lines().last() {
                    shared.cursors.lock().accepted(accepted, &last.channel);
                }
                return Ok(());
            }
            Ok(Err(error)) if is_answer(&error) => {
                let text = format!("Redis at {place}: {}", said(&error));
                return Err(if is_refusal(&error) { BusError::Unavailable(text) } else { BusError::Unknown(text) });
            }
            Ok(Err(_)) => {}
            Err(_) => break,
        }
        // The connection is lost, and with it the answer.
        let Some(other) = shared.link(Some(&link), deadline).await else { break };
        link = other;
        // Another server, or the same after a restart, may have forgotten what it did.
        call.args[Call::MODE] = if link.server == first { b"again".to_vec() } else { b"look".to_vec() };
    }
    Err(unknown(place))
}

/// The script's arguments.
struct Call {
    args: Vec<Vec<u8>>,
}

impl Call {
    const MODE: usize = 5;

    fn new<'a>(shared: &Shared, known: Position, lines: impl Iterator<Item = &'a Line> + Clone) -> Call {
        let settings = &shared.settings;
        let mut numbers: HashMap<&str, usize> = HashMap::default();
        let mut names = Vec::new();
        for line in lines.clone() {
            numbers.entry(&line.channel).or_insert_with(|| {
                names.push(&*line.channel);
                names.len()
            });
        }
        let mut args: Vec<Vec<u8>> = shared.args().iter().map(|arg| arg.as_bytes().to_vec()).collect();
        args.extend(
            [
                format!("{:016x}", super::random()),
                shared.sure().to_string(),
                known.offset.to_string(),
                "first".to_owned(),
                uuid::Uuid::now_v7().simple().to_string(),
                format!("{:016x}", known.epoch),
                (settings.publish_timeout * 4).as_millis().to_string(),
                settings.age.as_millis().to_string(),
                (settings.age + super::KEPT).as_millis().to_string(),
                names.len().to_string(),
            ]
            .map(String::into_bytes),
        );
        for name in names {
            args.push(name.as_bytes().to_vec());
            args.push(shared.history(name).to_string().into_bytes());
        }
        for line in lines {
            args.push(numbers[&*line.channel].to_string().into_bytes());
            args.push(line.text.as_bytes().to_vec());
        }
        Call { args }
    }
}

/// Whether nothing was done: these are found before anything is written.
fn is_refusal(error: &RedisError) -> bool {
    use redis::ServerErrorKind::{BusyLoading, MasterDown, NoPerm, NoScript, ReadOnly};
    let text = error.to_string();
    // A right may lack for what the script writes first, or for what comes later.
    if SCRIPT_RIGHTS.iter().any(|said| text.contains(said)) {
        return text.contains("nothing was appended");
    }
    matches!(error.kind(), ErrorKind::Server(BusyLoading | MasterDown | NoPerm | NoScript | ReadOnly))
        // A script hands these on in its own words.
        || ["READONLY", "MISCONF", "OOM", "NOPERM", "NOAUTH", "BUSY", "NOREPLICAS"].iter().any(|code| text.contains(code))
}

/// Publishes an event that nobody hears, to find out at once whether the server takes events from this user.
pub(super) async fn attempt(shared: &Shared, link: &Link) -> Result<(), String> {
    let line = Line { channel: super::TRIAL.into(), text: "{}".to_owned() };
    let known = shared.cursors.lock().position();
    let call = Call::new(shared, known, std::iter::once(&line));
    link.run::<String>(&PUBLISH, &call.args).await.map(drop).map_err(|error| said(&error))
}
