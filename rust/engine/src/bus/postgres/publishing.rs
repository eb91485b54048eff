//! Publishing, and reading history: one connection, which may go through a transaction pooler.
//!
//! What is published while a statement is under way goes together into the next one. A statement has no name and stands
//! for itself, so it does not matter which of a pooler's connections runs it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use super::connect::{Link, reason};
use super::{BACKOFF, DEADLINE, Shared, backoff, entry, install, within};
use crate::bus::{BusError, Page, Published};
use crate::event::{Audience, Event, Offset, Position};

/// Publishes that may wait.
pub(super) const WAITING: usize = 4096;
/// Their bytes; one publish more may be larger.
const WAITING_BYTES: usize = 64 << 20;
/// What one statement publishes at most, unless a single publish is larger.
const TOGETHER: usize = 1000;
const TOGETHER_BYTES: usize = 1 << 20;
/// An idle connection is asked this often whether it works, and whether the server takes anything.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// The longest name of a channel, as an index has to take it.
const LONGEST_CHANNEL: usize = 1024;
/// A page of history holds at most so many bytes of data, unless its first event is larger.
pub(super) const PAGE_BYTES: i64 = 1 << 20;

/// Events that are published together or not at all.
pub(super) struct Request {
    events: Vec<Event>,
    bytes: usize,
    deadline: Instant,
    answer: oneshot::Sender<Result<(), BusError>>,
}

/// Publishes events, or says at once why not.
pub(super) fn publish(shared: &Arc<Shared>, events: Vec<Event>) -> Published {
    let refused = |error| Published::Later(Box::pin(std::future::ready(Err(error))));
    if let Some(event) = events.iter().find(|event| event.channel.len() > LONGEST_CHANNEL) {
        let problem = format!("channel has {} bytes; this bus takes {LONGEST_CHANNEL}", event.channel.len());
        return refused(BusError::Refused(problem));
    }
    let size = |event: &Event| event.size + event.previous.as_ref().map_or(0, |previous| previous.to_json().len());
    let bytes = events.iter().map(size).sum();
    let requests = shared.state.lock().requests.clone();
    let away = || {
        let error = shared.state.lock().last_error.clone();
        BusError::Unavailable(error.unwrap_or_else(|| shared.dsn.at("not connected")))
    };
    // Where only this connection is away, the server is there: the publish waits for the next attempt.
    let is_there = shared.publishing.borrow().is_some() || *shared.listening.borrow();
    let Some(requests) = requests.filter(|_| is_there) else { return refused(away()) };
    let full = || BusError::Unavailable(shared.dsn.at("too much is waiting to be published"));
    if shared.waiting.fetch_add(bytes, Relaxed) > WAITING_BYTES {
        shared.waiting.fetch_sub(bytes, Relaxed);
        return refused(full());
    }
    let (answer, answered) = oneshot::channel();
    let deadline = Instant::now() + shared.publish_timeout;
    if let Err(error) = requests.try_send(Request { events, bytes, deadline, answer }) {
        shared.waiting.fetch_sub(bytes, Relaxed);
        return refused(if matches!(error, mpsc::error::TrySendError::Full(_)) { full() } else { away() });
    }
    let at = shared.dsn.at("the bus was disconnected before it answered a publish");
    Published::Later(Box::pin(async move { answered.await.unwrap_or(Err(BusError::Unknown(at))) }))
}

/// Keeps a connection, and publishes by it, until nobody can publish any more.
pub(super) async fn run(shared: Arc<Shared>, mut link: Link, mut queue: mpsc::Receiver<Request>) {
    let mut held = None;
    loop {
        let Err(error) = serve(&shared, &mut link, held.take(), &mut queue).await else { return };
        shared.publishing.send_replace(None);
        shared.lost(&shared.dsn.at(&error));
        drop(link);
        let Some(opened) = reopen(&shared, &mut held, &mut queue).await else { return };
        link = opened;
        shared.state.lock().reconnects += 1;
        shared.publishing.send_replace(Some(link.client.clone()));
    }
}

/// Connects anew, or gives up when nobody can publish any more. What is to be published meanwhile waits for the next
/// attempt, though not beyond its deadline; the first of it is `held`.
async fn reopen(shared: &Arc<Shared>, held: &mut Option<Request>, queue: &mut mpsc::Receiver<Request>) -> Option<Link> {
    let mut pauses = (0..).map(backoff);
    loop {
        let pause = pauses.next().unwrap_or(BACKOFF);
        let attempted = async {
            sleep(pause).await;
            within(shared.connect_timeout.min(DEADLINE), &shared.dsn, shared.open_publishing()).await
        };
        tokio::pin!(attempted);
        let opened = loop {
            let deadline = held.as_ref().map(|request| request.deadline);
            tokio::select! {
                opened = &mut attempted => break opened,
                request = queue.recv(), if held.is_none() => *held = Some(request?),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    held.take().into_iter().for_each(|request| request.expired(shared));
                }
            }
        };
        match opened {
            Ok(link) => return Some(link),
            Err(error) => {
                shared.failed(&error);
                for request in held.take().into_iter().chain(std::iter::from_fn(|| queue.try_recv().ok())) {
                    request.answer(shared, Err(BusError::Unavailable(error.clone())));
                }
            }
        }
    }
}

/// Publishes by one connection until that is lost, which is the error.
async fn serve(
    shared: &Shared,
    link: &mut Link,
    mut held: Option<Request>,
    queue: &mut mpsc::Receiver<Request>,
) -> Result<(), String> {
    let client = link.client.clone();
    loop {
        let first = match held.take() {
            Some(request) => request,
            None => tokio::select! {
                error = link.ended() => return Err(error),
                () = sleep(KEEPALIVE) => {
                    let asking = client.query_typed_one(install::IS_READ_ONLY, &[]);
                    let asked = timeout(DEADLINE.min(shared.publish_timeout), asking).await;
                    let row = asked.map_err(|_| "it is silent".to_owned())?.map_err(|error| reason(&error))?;
                    install::check_writable(row.get(0))?;
                    continue;
                }
                request = queue.recv() => match request {
                    Some(request) => request,
                    None => return Ok(()),
                },
            },
        };
        let (mut events, mut bytes) = (0, 0);
        let mut together = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next {
            if request.deadline <= Instant::now() {
                request.expired(shared);
            } else {
                events += request.events.len();
                bytes += request.bytes;
                together.push(request);
            }
            next = if events < TOGETHER && bytes < TOGETHER_BYTES { queue.try_recv().ok() } else { None };
        }
        if !together.is_empty() {
            send(shared, &client, together).await?;
        }
    }
}

/// Publishes requests in one statement, or one by one where the server refuses them together.
async fn send(shared: &Shared, client: &Client, requests: Vec<Request>) -> Result<(), String> {
    let outcome = insert(shared, client, &requests).await;
    if requests.len() == 1 || !matches!(outcome, Err(Failure::Refused(_))) {
        return finish(shared, requests, outcome);
    }
    let mut ended = Ok(());
    for request in requests {
        let outcome = insert(shared, client, std::slice::from_ref(&request)).await;
        ended = ended.and(finish(shared, vec![request], outcome));
    }
    ended
}

/// Answers; the error is that of a connection which is of no use any more.
fn finish(shared: &Shared, requests: Vec<Request>, outcome: Result<(), Failure>) -> Result<(), String> {
    let (answer, lost) = match outcome {
        Ok(()) => (Ok(()), None),
        Err(Failure::Refused(error)) => {
            let text = shared.dsn.at(&reason(&error));
            // Of data that is wrong, limits that are reached, and what a function of the schema raised.
            let is_at_fault = error.code().is_some_and(|code| matches!(&code.code()[..2], "22" | "23" | "54" | "P0"));
            let answer = if is_at_fault { BusError::Refused(text) } else { BusError::Unavailable(text) };
            // Another server, or this one later, may take what one refuses that is a standby, full or broken, or that has
            // taken our rights away.
            let is_unfit = error.code().is_some_and(|code| {
                let own = [SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::INSUFFICIENT_PRIVILEGE].contains(code);
                own || matches!(&code.code()[..2], "53" | "58")
            });
            shared.unfit.fetch_or(is_unfit, Relaxed);
            (Err(answer), is_unfit.then(|| reason(&error)))
        }
        Err(Failure::NotSent) => {
            let lost = "the connection was lost".to_owned();
            (Err(BusError::Unavailable(shared.dsn.at(&lost))), Some(lost))
        }
        Err(Failure::Unknown(lost)) => {
            let text = shared.dsn.at(&format!("{lost}; what was being published may have been accepted"));
            (Err(BusError::Unknown(text)), Some(lost))
        }
    };
    for request in requests {
        request.answer(shared, answer.clone());
    }
    lost.map_or(Ok(()), Err)
}

/// Why a statement did not publish.
enum Failure {
    /// The server said so, and has undone it.
    Refused(Error),
    NotSent,
    /// It may have.
    Unknown(String),
}

impl Request {
    /// It was not sent in time.
    fn expired(self, shared: &Shared) {
        let text = shared.dsn.at("no connection, or no answer to others, within publish_timeout");
        self.answer(shared, Err(BusError::Unavailable(text)));
    }

    fn answer(self, shared: &Shared, outcome: Result<(), BusError>) {
        shared.waiting.fetch_sub(self.bytes, Relaxed);
        // Whoever published may not wait for it any more.
        _ = self.answer.send(outcome);
    }
}

async fn insert(shared: &Shared, client: &Client, requests: &[Request]) -> Result<(), Failure> {
    let Some(deadline) = requests.iter().map(|request| request.deadline).min() else { return Ok(()) };
    if client.is_closed() {
        return Err(Failure::NotSent);
    }
    let events = || requests.iter().flat_map(|request| &request.events);
    let ids: Vec<Uuid> = events().map(|event| Uuid::parse_str(&event.id).unwrap_or_default()).collect();
    let channels: Vec<&str> = events().map(|event| &*event.channel).collect();
    let types: Vec<&str> = events().map(|event| &*event.event_type).collect();
    let tenants: Vec<Option<&str>> = events()
        .map(|event| match &event.audience {
            Audience::Tenant(tenant) => tenant.as_deref(),
            Audience::All => None,
        })
        .collect();
    let all: Vec<bool> = events().map(|event| event.audience == Audience::All).collect();
    let sources: Vec<Option<&str>> = events().map(|event| event.source.as_deref()).collect();
    let data: Vec<String> = events().map(|event| event.data.to_json()).collect();
    let previous: Vec<Option<String>> =
        events().map(|event| event.previous.as_ref().map(|previous| previous.to_json())).collect();
    let statement = shared.schema.fill("SELECT @schema@.publish_sent($1, $2, $3, $4, $5, $6, $7, $8)");
    let parameters: &[(&(dyn ToSql + Sync), Type)] = &[
        (&ids, Type::UUID_ARRAY),
        (&channels, Type::TEXT_ARRAY),
        (&types, Type::TEXT_ARRAY),
        (&tenants, Type::TEXT_ARRAY),
        (&all, Type::BOOL_ARRAY),
        (&sources, Type::TEXT_ARRAY),
        (&data, Type::TEXT_ARRAY),
        (&previous, Type::TEXT_ARRAY),
    ];
    let asked = client.execute_typed(&statement, parameters);
    match timeout_at(deadline, asked).await {
        Ok(Ok(_)) => Ok(()),
        // A session that is ended may have committed before; a statement that failed has not.
        Ok(Err(error)) if is_answer(&error) => Err(Failure::Refused(error)),
        Ok(Err(error)) => Err(Failure::Unknown(reason(&error))),
        Err(_) => Err(Failure::Unknown("no answer within publish_timeout".to_owned())),
    }
}

/// Reads history; while there is no connection it waits for one.
pub(super) async fn read(shared: &Shared, channel: &str, after: Position, limit: usize) -> Result<Page, BusError> {
    let name: Arc<str> = channel.into();
    let receiver = shared.state.lock().receiver.clone();
    let mut after = after;
    loop {
        let (rows, end) = rows(shared, channel, after, limit).await?;
        let mut events = Vec::with_capacity(rows.len());
        for row in &rows {
            after.offset = entry::offset(row).unwrap_or(after.offset);
            match (entry::event(row, after.epoch, name.clone()), &receiver) {
                (Ok(event), _) => events.push(Arc::new(event)),
                (Err(reason), Some(receiver)) => receiver.skip(channel, &reason),
                (Err(_), None) => {}
            }
        }
        if end.is_some() || !events.is_empty() {
            return Ok(Page { events, through: end.unwrap_or(after.offset) });
        }
    }
}

/// A page of rows; with the bus's end where there are no others.
async fn rows(
    shared: &Shared,
    channel: &str,
    after: Position,
    limit: usize,
) -> Result<(Vec<Row>, Option<Offset>), BusError> {
    let (Ok(offset), Ok(most)) = (i64::try_from(after.offset), i64::try_from(limit)) else {
        return Err(BusError::HistoryLost);
    };
    // What the bus says of itself comes with each event, or else alone. In one statement, which sees one moment.
    let statement = shared.schema.fill(&format!(
        "SELECT {columns}, s.last, s.is_kept, e.found FROM (
            SELECT t.last, m.epoch = $2 AND $3 <= t.last AND $3 >= coalesce(c.trimmed, r.floor) AS is_kept
            FROM @schema@.meta m CROSS JOIN @schema@.pruning r
            CROSS JOIN (SELECT last FROM @schema@.tick ORDER BY tick DESC LIMIT 1) t
            LEFT JOIN @schema@.channel c ON c.channel = $1
        ) s LEFT JOIN LATERAL (
            SELECT * FROM (
                SELECT position, seq, sum(size) OVER (ORDER BY position) - size AS before, count(*) OVER () AS found
                FROM (SELECT * FROM @schema@.position
                    WHERE s.is_kept AND channel = $1 AND position > $3 ORDER BY position LIMIT $4) AS next
            ) AS page JOIN @schema@.event USING (seq) WHERE before < {PAGE_BYTES}
        ) e ON true ORDER BY e.position",
        columns = entry::COLUMNS,
    ));
    let epoch = after.epoch.cast_signed();
    let parameters: &[(&(dyn ToSql + Sync), Type)] =
        &[(&channel, Type::TEXT), (&epoch, Type::INT8), (&offset, Type::INT8), (&most, Type::INT8)];
    let mut publishing = shared.publishing.subscribe();
    let mut rows = loop {
        // The sender is as old as what is borrowed here.
        let client = publishing.wait_for(Option::is_some).await.ok().and_then(|client| client.clone());
        let Some(client) = client else { continue };
        match client.query_typed(&statement, parameters).await {
            Ok(rows) => break rows,
            Err(error) if is_answer(&error) => return Err(BusError::Unavailable(shared.dsn.at(&reason(&error)))),
            // The connection is gone; there will be another.
            Err(_) => _ = publishing.wait_for(|now| !now.as_ref().is_some_and(|now| Arc::ptr_eq(now, &client))).await,
        }
    };
    let said = rows.first().and_then(|row| Some((row.try_get(11).ok()?, row.try_get(12).ok()?, row.try_get(13).ok()?)));
    let (last, is_kept, found): (i64, bool, Option<i64>) = said.ok_or(BusError::HistoryLost)?;
    if !is_kept {
        return Err(BusError::HistoryLost);
    }
    let found = found.unwrap_or_else(|| {
        rows.clear();
        0
    });
    let is_all = i64::try_from(rows.len()) == Ok(found) && found < most;
    Ok((rows, is_all.then_some(last.cast_unsigned())))
}

/// Whether the server has answered, and goes on.
fn is_answer(error: &Error) -> bool {
    error.as_db_error().is_some_and(|said| said.severity() == "ERROR")
}
