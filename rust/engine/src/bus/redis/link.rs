//! The connections of one session: one for commands, one that is told what is published.
//!
//! Both are opened here and not by the client library: its pub/sub connection reads ahead without bound, and its TLS would choose
//! a provider for the whole process. Whoever does not read leaves what comes to the server, which gives a reader up that is
//! too slow; then history has what it missed.

use std::ops::Range;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ErrorKind, FromRedisValue, RedisConnectionInfo, RedisError, Script, cmd,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::config::Settings;
use crate::bus::tls::{self, Verify};

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A server that is silent for this long is gone.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// Names of channels in one command.
pub(super) const AT_ONCE: usize = 1_000;
/// No frame of ours is larger; an event alone may be a few mebibytes.
const MAX_FRAME: usize = 256 << 20;

macro_rules! script {
    ($name:literal) => {
        LazyLock::new(|| Code::new(concat!(include_str!("clock.lua"), "\n", include_str!($name))))
    };
}

pub(super) static PUBLISH: LazyLock<Code> = script!("publish.lua");
pub(super) static PULSE: LazyLock<Code> = script!("pulse.lua");
pub(super) static READ: LazyLock<Code> = script!("read.lua");

/// A script and its name at the server.
pub(super) struct Code {
    text: &'static str,
    sha: String,
}

impl Code {
    fn new(text: &'static str) -> Code {
        Code { text, sha: Script::new(text).get_hash().to_owned() }
    }
}

/// The connection for commands; its clones share it.
#[derive(Clone)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// Which run of which server this is.
    pub(super) server: Arc<str>,
    /// Whether it forgets keys where memory is short.
    pub(super) evicts: bool,
    number: u64,
    /// Why its server is of no use any more, as it said itself.
    unfit: watch::Sender<Option<String>>,
}

/// A task that ends with its owner.
pub(super) struct Owned<T>(pub(super) JoinHandle<T>);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    /// Connects, and refuses servers that cannot do this; the task is done when the connection is lost.
    pub(super) async fn open(
        settings: &Settings,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<(Link, Owned<()>), String> {
        let stream = connect(settings, tls).await?;
        // Every call has its own time limit.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let opened = MultiplexedConnection::new_with_config(settings.server.redis_settings(), stream, config).await;
        let (mut connection, driver) = opened.map_err(reason)?;
        let task = Owned(tokio::spawn(driver));
        let info: String = cmd("INFO").query_async(&mut connection).await.map_err(reason)?;
        let server = check(&info)?;
        let evicts = field(&info, "maxmemory").is_some_and(|most| most != "0")
            && field(&info, "maxmemory_policy").is_some_and(|policy| policy != "noeviction");
        Ok((Link { connection, server, evicts, number: super::random(), unfit: watch::Sender::new(None) }, task))
    }

    /// Runs a script; it is sent in full only where the server does not have it yet.
    pub(super) async fn run<T: FromRedisValue>(&self, code: &Code, args: &[impl AsRef<[u8]>]) -> Result<T, RedisError> {
        let command = |name: &str, code: &str| {
            let mut command = cmd(name);
            command.arg(code).arg(0);
            args.iter().for_each(|arg| _ = command.arg(arg.as_ref()));
            command
        };
        match self.query(&command("EVALSHA", &code.sha)).await {
            Err(error) if error.code() == Some("NOSCRIPT") => self.query(&command("EVAL", code.text)).await,
            outcome => outcome,
        }
    }

    pub(super) fn is_same(&self, other: Option<&Link>) -> bool {
        other.is_some_and(|other| other.number == self.number)
    }

    /// Runs a command.
    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let answer = command.query_async(&mut self.connection.clone()).await;
        if let Some(said) = answer.as_ref().err().and_then(unfit) {
            self.unfit.send_replace(Some(said));
        }
        answer
    }

    /// Waits until the server says that it is of no use any more; returns what it said.
    pub(super) async fn unfit(&self) -> String {
        let mut unfit = self.unfit.subscribe();
        // The sender is as old as what is borrowed here.
        unfit.wait_for(Option::is_some).await.ok().and_then(|said| said.clone()).unwrap_or_default()
    }
}

/// Why a connection is given up.
pub(super) fn silent() -> String {
    format!("no answer for {} s", SILENCE.as_secs())
}

/// An error's text, on one line.
pub(super) fn reason(error: impl std::fmt::Display) -> String {
    error.to_string().replace(['\r', '\n'], " ")
}

/// Whether the server itself said so.
pub(super) fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// What a server says of itself that does not do what was asked, but would later, as another would: it may have been demoted, and
/// have kept its connections. A script hands this on behind words of its own.
pub(super) fn unfit(error: &RedisError) -> Option<String> {
    const SAID: [&str; 7] = ["READONLY", "MISCONF", "NOREPLICAS", "OOM", "NOPERM", "LOADING", "MASTERDOWN"];
    let text = format!("{} {}", error.code()?, error.detail().unwrap_or_default());
    let at = SAID.iter().chain(&SCRIPT_RIGHTS).find_map(|said| text.find(said))?;
    // What follows is the place in the script.
    let whole = text[at..].rsplit_once(" script: ").filter(|(_, place)| place.contains("@user_script"));
    is_answer(error).then(|| reason(whole.map_or(&text[at..], |(said, _)| said)))
}

/// What is said of a right that a script lacks, by Valkey and by Redis 6.2.
pub(super) const SCRIPT_RIGHTS: [&str; 2] = ["ACL failure in script", "The user executing the script"];

/// An error's text, or the server's own words where they are about itself.
pub(super) fn said(error: &RedisError) -> String {
    unfit(error).unwrap_or_else(|| reason(error))
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}

/// Whether this server will do, by its `INFO`; its identity.
fn check(info: &str) -> Result<Arc<str>, String> {
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end);
    let version = field("redis_version").unwrap_or_default();
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(2)) {
        return Err(format!("the server is Redis {version}; 6.2 or newer, or Valkey, is needed"));
    }
    if field("cluster_enabled") == Some("1") || field("redis_mode") == Some("cluster") {
        return Err("the server is in cluster mode, which is not supported".to_owned());
    }
    if field("role").is_some_and(|role| role != "master") {
        return Err("the server is a replica, which takes no events".to_owned());
    }
    if field("loading") == Some("1") {
        return Err("the server is still loading its data".to_owned());
    }
    Ok(field("run_id").unwrap_or_default().into())
}

/// How the server's certificate is checked: by the system's roots, or those that `SSL_CERT_FILE` names, and those of the URL.
pub(super) fn tls(settings: &Settings) -> Result<Arc<ClientConfig>, String> {
    let mut roots = Vec::new();
    if settings.verify != Verify::Nothing {
        roots = tls::of_system();
        if let Some(path) = &settings.authorities {
            roots.extend(tls::of_file(path)?);
        }
    }
    tls::client(settings.verify, roots).map(Arc::new)
}

async fn connect(settings: &Settings, tls: Option<&Arc<ClientConfig>>) -> Result<Box<dyn Duplex>, String> {
    let tcp = async |host: &str, port: u16| {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(stream)
    };
    match settings.server.addr() {
        #[cfg(unix)]
        ConnectionAddr::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await.map_err(reason)?)),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let tls = tls.ok_or("TLS was not set up")?;
            let name = ServerName::try_from(host.clone()).map_err(reason)?;
            let stream = tcp(host, *port).await.map_err(reason)?;
            Ok(Box::new(TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(reason)?))
        }
        ConnectionAddr::Tcp(host, port) => Ok(Box::new(tcp(host, *port).await.map_err(reason)?)),
        _ => Err("this kind of address is not supported".to_owned()),
    }
}

/// The connection that is told what is published.
pub(super) struct Inbound {
    stream: Box<dyn Duplex>,
    buffer: BytesMut,
}

/// What it is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// By name.
    Subscribed(Bytes),
    /// By name.
    Unsubscribed(Bytes),
    /// Name and payload.
    Message(Bytes, Bytes),
}

impl Inbound {
    pub(super) async fn open(settings: &Settings, tls: Option<&Arc<ClientConfig>>) -> Result<Inbound, String> {
        let mut inbound = Inbound { stream: connect(settings, tls).await?, buffer: BytesMut::new() };
        inbound.authenticate(settings.server.redis_settings()).await?;
        Ok(inbound)
    }

    async fn authenticate(&mut self, settings: &RedisConnectionInfo) -> Result<(), String> {
        let Some(password) = settings.password() else { return Ok(()) };
        let mut command = cmd("AUTH");
        settings.username().into_iter().for_each(|user| _ = command.arg(user));
        self.send(command.arg(password)).await?;
        self.frame().await.map(drop)
    }

    pub(super) async fn subscribe(&mut self, names: &[String]) -> Result<(), String> {
        self.each("SUBSCRIBE", names).await
    }

    pub(super) async fn unsubscribe(&mut self, names: &[String]) -> Result<(), String> {
        self.each("UNSUBSCRIBE", names).await
    }

    async fn each(&mut self, name: &str, names: &[String]) -> Result<(), String> {
        for names in names.chunks(AT_ONCE) {
            self.send(cmd(name).arg(names)).await?;
        }
        Ok(())
    }

    async fn send(&mut self, command: &Cmd) -> Result<(), String> {
        let sending = async {
            self.stream.write_all(&command.get_packed_command()).await?;
            self.stream.flush().await
        };
        timeout(SILENCE, sending).await.map_err(|_| silent())?.map_err(reason)
    }

    /// The next thing that it is told. Nothing is lost when this is dropped.
    pub(super) async fn next(&mut self) -> Result<Told, String> {
        loop {
            let (frame, items) = self.frame().await?;
            let item = |at: usize| items.get(at).map(|range| frame.slice(range.clone()));
            match (item(0).as_deref(), item(1), item(2)) {
                (Some(b"message"), Some(name), Some(payload)) => return Ok(Told::Message(name, payload)),
                (Some(b"subscribe"), Some(name), _) => return Ok(Told::Subscribed(name)),
                (Some(b"unsubscribe"), Some(name), _) => return Ok(Told::Unsubscribed(name)),
                _ => {}
            }
        }
    }

    async fn frame(&mut self) -> Result<(Bytes, Vec<Range<usize>>), String> {
        loop {
            if let Some((length, items)) = frame(&self.buffer)? {
                return Ok((self.buffer.split_to(length).freeze(), items));
            }
            self.buffer.reserve(16 << 10);
            if self.stream.read_buf(&mut self.buffer).await.map_err(reason)? == 0 {
                return Err("the server closed the connection".to_owned());
            }
        }
    }
}

/// How long a frame is, and where its texts are.
type Frame = (usize, Vec<Range<usize>>);

/// The length of the first frame (RESP 2) in a buffer and where its texts are, once it is there. Lists are flat in what a subscriber
/// is told.
fn frame(buffer: &[u8]) -> Result<Option<Frame>, String> {
    let mut items = Vec::new();
    let (mut at, mut wanted) = (0, 1usize);
    while wanted > 0 {
        let Some(rest) = buffer.get(at..).filter(|rest| !rest.is_empty()) else { return Ok(None) };
        let Some(end) = rest.iter().take(1 << 16).position(|byte| *byte == b'\n') else {
            return if rest.len() < 1 << 16 { Ok(None) } else { Err("the server's answer is not Redis'".to_owned()) };
        };
        let line = at + 1..at + end.saturating_sub(1).max(1);
        let text = String::from_utf8_lossy(&buffer[line.clone()]);
        at += end + 1;
        wanted -= 1;
        let number = || text.parse::<i64>().map_err(|_| "the server's answer is not Redis'".to_owned());
        match rest[0] {
            b'+' | b':' => items.push(line),
            b'-' => return Err(text.into_owned()),
            b'*' => wanted += usize::try_from(number()?).unwrap_or(0).min(1 << 10),
            b'$' => {
                // -1 is none.
                let length = usize::try_from(number()?).unwrap_or(0);
                if length > MAX_FRAME {
                    return Err(format!("a message of {length} bytes is none of ours"));
                }
                items.push(at..at + length);
                at += length + 2;
                if number()? < 0 {
                    at -= 2;
                }
            }
            _ => return Err("the server's answer is not Redis'".to_owned()),
        }
        if at > buffer.len() {
            return Ok(None);
        }
    }
    Ok(Some((at, items)))
}

#[cfg(test)]
mod tests;
