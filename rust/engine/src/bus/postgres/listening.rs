//! Listening, giving positions, reading what is new, pruning: one connection, on which all of it is sent at once and
//! answered in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Notification, Row, Statement};

use super::connect::{Link, reason};
use super::lead::{Lead, Outcome, Snapshot};
use super::publishing::PAGE_BYTES;
use super::reader::{NewEpoch, Positioned, Read};
use super::{Answered, BACKOFF, DEADLINE, Shared, backoff, chance, entry, within};
use crate::bus::{Receiver, wire};
use crate::event::Offset;

/// Events of one page.
const PAGE: i64 = 500;
/// Events that are handed over before others get their turn.
const TURN: usize = 32;
/// From one pruning to the next.
const PRUNING: Duration = Duration::from_secs(30);
/// Events that one pruning removes at once, and the pause after it, in which others have the connection.
const PRUNED: i32 = 1000;
const PRUNING_PAUSE: Duration = Duration::from_millis(50);
/// What is so young is not removed for being one too many: a reader may be there.
const SPARED: f64 = 20.0;

/// A connection that listens; what the reader knows is as of its beginning.
pub(super) struct Session {
    link: Link,
    asks: Asks,
    heard: Arc<Heard>,
    /// Channels in which events were lost since the last session.
    gaps: Vec<Arc<str>>,
}

/// What is asked of the server.
struct Asks {
    client: Arc<Client>,
    advance: Statement,
    page: Statement,
    trimmed: Statement,
    prune: Statement,
}

/// What `advance` answers.
struct Advanced {
    epoch: u64,
    last: Offset,
    positioned: i64,
    more: bool,
}

/// What notifications need of the session that hears them.
#[derive(Default)]
struct Heard {
    /// The server's number for it.
    number: AtomicI32,
    /// The bus began another epoch.
    renewed: Notify,
}

/// Keeps a session until it is aborted.
pub(super) async fn run(shared: Arc<Shared>, mut session: Session) {
    loop {
        let receiver = shared.state.lock().receiver.clone();
        let Some(receiver) = receiver else { return };
        let error = session.run(&shared, &*receiver).await;
        shared.listening.send_replace(false);
        shared.state.lock().reader.disconnected();
        shared.lost(&shared.listen_dsn.at(&error));
        drop(session);
        let mut pauses = (0..).map(backoff);
        session = loop {
            sleep(pauses.next().unwrap_or(BACKOFF)).await;
            let opening = Session::open(&shared);
            match within(shared.connect_timeout.min(DEADLINE), &shared.listen_dsn, opening).await {
                Ok(session) => break session,
                Err(error) => shared.failed(&error),
            }
        };
        shared.state.lock().reconnects += 1;
        shared.listening.send_replace(true);
    }
}

impl Session {
    /// Connects, listens, and learns where the bus stands.
    pub(super) async fn open(shared: &Arc<Shared>) -> Result<Session, String> {
        let heard = Arc::<Heard>::default();
        let (hears, hearing) = (Arc::downgrade(shared), heard.clone());
        let notified = move |notification: Notification| {
            if let Some(shared) = hears.upgrade() {
                hearing.notified(&shared, &notification);
            }
        };
        let link = shared.listen_dsn.connect(notified).await?;
        let opening = async {
            shared.check(&link.client).await?;
            Asks::prepare(link.client.clone(), shared, &heard).await.map_err(|error| reason(&error))
        };
        let (asks, Advanced { epoch, last, .. }) = opening.await.map_err(|reason| shared.listen_dsn.at(&reason))?;
        let now = Instant::now();
        let mut state = shared.state.lock();
        state.lead = Lead::new(now);
        let gaps = state.reader.connected(epoch, last, now);
        Ok(Session { link, asks, heard, gaps })
    }

    /// Goes on until the connection is of no use any more; returns why.
    async fn run(&mut self, shared: &Shared, receiver: &dyn Receiver) -> String {
        for channel in std::mem::take(&mut self.gaps) {
            tell_gap(receiver, &channel);
        }
        shared.read.notify_one();
        shared.lead.notify_one();
        tokio::select! {
            error = self.link.ended() => error,
            () = self.heard.renewed.notified() => "the bus began a new epoch".to_owned(),
            error = self.asks.lead(shared) => error,
            error = self.asks.read(shared, receiver) => error,
            error = self.asks.prune(shared, receiver) => error,
        }
    }
}

impl Heard {
    /// A transaction that published says its number, whoever gave positions says `p` and more.
    fn notified(&self, shared: &Shared, notification: &Notification) {
        let now = Instant::now();
        if let Ok(transaction) = notification.payload().parse() {
            shared.state.lock().lead.published(transaction, now, chance());
            shared.lead.notify_one();
            return;
        }
        let parts: Vec<&str> = notification.payload().splitn(6, ' ').collect();
        let ["p", epoch, after, last, snapshot, channels] = parts[..] else { return };
        let (Ok(epoch), Ok(after), Ok(last)) = (epoch.parse::<i64>(), after.parse(), last.parse()) else { return };
        let channels = serde_json::from_str::<Vec<String>>(channels).ok();
        let epoch = epoch.cast_unsigned();
        let own = self.number.load(Relaxed);
        let mut state = shared.state.lock();
        if notification.process_id() != own {
            let is_smaller = notification.process_id() < own;
            state.lead.positioned(Snapshot::parse(snapshot).as_ref(), is_smaller, now, chance());
        }
        if state.reader.positioned(&Positioned { epoch, after, last, channels }, now) == Err(NewEpoch) {
            self.renewed.notify_one();
        }
        shared.read.notify_one();
    }
}

impl Asks {
    async fn prepare(client: Arc<Client>, shared: &Shared, heard: &Heard) -> Result<(Asks, Advanced), Error> {
        let schema = &shared.schema;
        // Indexes are used whatever statistics say, and what nobody waits for any more ends.
        let settings = "SET default_transaction_isolation = 'read committed'; SET enable_seqscan = off; \
            SET statement_timeout = '10s'; SET idle_session_timeout = 0";
        let page = format!(
            "SELECT {columns}, found FROM (
                SELECT position, seq, sum(size) OVER (ORDER BY position) - size AS before, count(*) OVER () AS found
                FROM (SELECT * FROM @schema@.position
                    WHERE position > $2 AND position <= $3 AND channel = ANY ($1)
                    ORDER BY position LIMIT {PAGE}) AS next
            ) AS page JOIN @schema@.event USING (seq) WHERE before < {PAGE_BYTES} ORDER BY position",
            columns = entry::COLUMNS.replace("e.", ""),
        );
        let trimmed = "SELECT w.channel, coalesce(c.trimmed, r.floor) FROM @schema@.pruning AS r \
            CROSS JOIN unnest($1::text[]) AS w (channel) LEFT JOIN @schema@.channel AS c USING (channel) \
            WHERE coalesce(c.trimmed, r.floor) > $2";
        let advance = "SELECT epoch, last, positioned, more FROM @schema@.advance()";
        let prepare = |text: &str| {
            let (client, text) = (client.clone(), schema.fill(text));
            async move { client.prepare(&text).await }
        };
        let prune = "SELECT @schema@.prune($1, $2, $3, $4)";
        let listen = format!("{settings}; LISTEN \"{}\"", schema.notify());
        // All of it is sent at once, and done in this order.
        let (_, number, advance, page, trimmed, prune) = tokio::try_join!(
            client.batch_execute(&listen),
            client.query_typed_one("SELECT pg_backend_pid()", &[]),
            prepare(advance),
            prepare(&page),
            prepare(trimmed),
            prepare(prune),
        )?;
        heard.number.store(number.try_get(0)?, Relaxed);
        let asks = Asks { client: client.clone(), advance, page, trimmed, prune };
        loop {
            match asks.advance().await? {
                Some(advanced) => return Ok((asks, advanced)),
                None => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Gives positions; `None`: somebody else is at it.
    async fn advance(&self) -> Result<Option<Advanced>, Error> {
        let row = self.client.query_opt(&self.advance, &[]).await?;
        row.map(|row| {
            Ok(Advanced {
                epoch: row.try_get::<_, i64>(0)?.cast_unsigned(),
                last: row.try_get::<_, i64>(1)?.cast_unsigned(),
                positioned: row.try_get(2)?,
                more: row.try_get(3)?,
            })
        })
        .transpose()
    }

    /// Has positions given when it is this worker's turn.
    async fn lead(&self, shared: &Shared) -> String {
        loop {
            let asked = Instant::now();
            let (next, question) = {
                let mut state = shared.state.lock();
                (state.lead.next(asked), state.questions)
            };
            if let Err(due) = next {
                tokio::select! {
                    () = sleep_until(due) => {}
                    () = shared.lead.notified() => {}
                }
                continue;
            }
            let advanced = match answer(self.advance()).await {
                Ok(advanced) => advanced,
                Err(error) => return error,
            };
            let now = Instant::now();
            let mut state = shared.state.lock();
            let outcome = match &advanced {
                Some(Advanced { positioned, more, .. }) => Outcome::Positioned(*positioned, *more),
                None => Outcome::Busy,
            };
            state.lead.answered(outcome, now - asked, now, chance());
            match &advanced {
                Some(Advanced { last, more: false, .. }) => {
                    shared.asked.send_replace(Answered { question, end: *last });
                }
                _ if question > shared.asked.borrow().question => state.lead.wanted(),
                _ => {}
            }
            if let Some(Advanced { epoch, last, positioned: 0, .. }) = advanced {
                // Should anything have been told that was not heard.
                let told = Positioned { epoch, after: last, last, channels: None };
                if state.reader.positioned(&told, now) == Err(NewEpoch) {
                    return "the bus began a new epoch".to_owned();
                }
                shared.read.notify_one();
            }
        }
    }

    /// Hands over what is new.
    async fn read(&self, shared: &Shared, receiver: &dyn Receiver) -> String {
        loop {
            let mut next = shared.state.lock().reader.next(Instant::now());
            if next.is_none() {
                shared.read.notified().await;
            }
            while let Some(read) = next {
                let through = match self.page(shared, receiver, &read).await {
                    Ok(through) => through,
                    Err(error) => return error,
                };
                next = shared.state.lock().reader.handed(through, Instant::now());
            }
        }
    }

    /// Hands over one page; returns up to where.
    async fn page(&self, shared: &Shared, receiver: &dyn Receiver, read: &Read) -> Result<Offset, String> {
        let (after, through) = (read.after.cast_signed(), read.through.cast_signed());
        let channels: Vec<&str> = read.channels.iter().map(|channel| &**channel).collect();
        // What was trimmed is asked for behind the page: whatever the page lacks is told.
        let page: &[&(dyn ToSql + Sync)] = &[&channels, &after, &through];
        let rows = self.client.query(&self.page, page);
        let trimmed: &[&(dyn ToSql + Sync)] = &[&channels, &after];
        let trims = self.client.query(&self.trimmed, trimmed);
        let (rows, trims) = answer(async { tokio::try_join!(rows, trims) }).await?;
        for trim in trims {
            let (channel, through): (&str, i64) = (text(trim.try_get(0))?, text(trim.try_get(1))?);
            let is_gap = shared.state.lock().reader.trimmed(channel, through.cast_unsigned());
            if is_gap {
                tell_gap(receiver, channel);
            }
        }
        let epoch = shared.state.lock().reader.end().map_or(0, |(epoch, _)| epoch);
        for (at, row) in rows.iter().enumerate() {
            if at % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let wanted = shared.state.lock().reader.take(entry::channel(row)?, entry::offset(row)?);
            if let Some(channel) = wanted {
                hand_over(shared, receiver, row, epoch, &channel);
            }
        }
        let found: i64 = rows.first().map_or(Ok(0), |row| text(row.try_get(11)))?;
        let is_all = i64::try_from(rows.len()) == Ok(found) && found < PAGE;
        rows.last().filter(|_| !is_all).map_or(Ok(read.through), entry::offset)
    }

    /// Removes from time to time what is not to be kept any more.
    async fn prune(&self, shared: &Shared, receiver: &dyn Receiver) -> String {
        let mut is_told = false;
        loop {
            sleep(PRUNING.mul_f64(0.8 + 0.4 * chance())).await;
            loop {
                let parameters: &[&(dyn ToSql + Sync)] = &[&shared.history, &shared.history_age, &PRUNED, &SPARED];
                let pruned = match timeout(DEADLINE, self.client.query_one(&self.prune, parameters)).await {
                    Ok(Ok(row)) => row.try_get::<_, i64>(0).unwrap_or(0),
                    Ok(Err(error)) if error.as_db_error().is_some() => {
                        if !std::mem::replace(&mut is_told, true) {
                            receiver.warn(shared.listen_dsn.at(&format!("pruning: {}", reason(&error))));
                        }
                        0
                    }
                    Ok(Err(error)) => return reason(&error),
                    Err(_) => return "it is silent".to_owned(),
                };
                if pruned < PRUNED.into() {
                    break;
                }
                sleep(PRUNING_PAUSE).await;
            }
        }
    }
}

/// What a server answers in time, or why its connection is of no use.
async fn answer<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
    match timeout(DEADLINE, asked).await {
        Ok(answered) => answered.map_err(|error| reason(&error)),
        Err(_) => Err("it is silent".to_owned()),
    }
}

fn text<T>(read: Result<T, Error>) -> Result<T, String> {
    read.map_err(|error| reason(&error))
}

fn hand_over(shared: &Shared, receiver: &dyn Receiver, row: &Row, epoch: u64, channel: &Arc<str>) {
    match entry::event(row, epoch, channel.clone()) {
        Ok(event) if **channel == *wire::REVOKE => {
            if event.source.as_deref() != Some(&*shared.origin) {
                receiver.revoke(&Arc::new(wire::revoked(&event)));
            }
        }
        Ok(event) => receiver.receive(Arc::new(event)),
        Err(reason) => receiver.skip(channel, &reason),
    }
}

fn tell_gap(receiver: &dyn Receiver, channel: &str) {
    if channel == wire::REVOKE {
        receiver.warn("PostgreSQL: revocations of other processes may have been lost".to_owned());
    } else {
        receiver.gap(channel);
    }
}
