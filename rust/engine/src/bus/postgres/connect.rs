//! The way to a PostgreSQL server: what a DSN says, TLS with libpq's meanings, and a connection with its driver.
//!
//! tokio-postgres knows `sslmode` in part and `sslrootcert` not at all, so both are taken out of the DSN here. Nothing
//! here waits with a limit of its own, and no text that leaves here holds the password.

use std::error::Error as _;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{AsyncMessage, Client, Config, Error, Notification};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::bus::WRITTEN;
use crate::bus::tls::{self, Verify};

/// After this long without an acknowledgement the kernel gives a connection up.
const SILENCE: Duration = Duration::from_secs(10);

/// A DSN that was understood: the URL or the keyword form of libpq.
#[derive(Clone)]
pub struct Dsn {
    config: Config,
    /// `None`: as far as libpq's own file of authorities goes, where there is one.
    verify: Option<Verify>,
    roots: Roots,
    /// Hosts and ports, as error texts name them.
    address: String,
}

/// Whose certificates are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Roots {
    /// libpq's own file where there is one, else the system's.
    Usual,
    System,
    File(PathBuf),
}

/// A connection; dropping it ends the connection at once, without a word to a peer that may be silent.
pub struct Link {
    /// Its requests are sent at once and answered in order.
    pub client: Arc<Client>,
    driver: JoinHandle<String>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Waits for the connection's end, once; returns the reason.
    pub async fn ended(&mut self) -> String {
        (&mut self.driver).await.unwrap_or_else(|error| error.to_string())
    }
}

impl Dsn {
    /// Reads a DSN; the error names what is wrong with it.
    pub fn parse(text: &str) -> Result<Dsn, String> {
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        let (rest, own) = if matches!(scheme, "postgres" | "postgresql") {
            take_from_url(text)?
        } else if let Some((_, driver)) = scheme.split_once('+').filter(|(kind, _)| kind.starts_with("postgres")) {
            return Err(format!("expected a URL that begins with postgresql://: take `+{driver}` away"));
        } else {
            take_from_keywords(text)?
        };
        let mut config = Config::from_str(&rest).map_err(|error| match error.source() {
            // Only names of options come from the text.
            Some(source) => source.to_string(),
            None => error.to_string(),
        })?;
        let last = |name: &str| own.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let roots = match last("sslrootcert") {
            None | Some("") => Roots::Usual,
            Some("system") => Roots::System,
            Some(path) => Roots::File(path.into()),
        };
        let mode = last("sslmode").unwrap_or(if roots == Roots::System { "verify-full" } else { "prefer" });
        let (mode, verify) = match mode {
            "disable" => (SslMode::Disable, Some(Verify::Nothing)),
            "prefer" => (SslMode::Prefer, Some(Verify::Nothing)),
            // As libpq has it: who names authorities wants them asked.
            "require" if roots != Roots::Usual => (SslMode::Require, Some(Verify::Authority)),
            "require" => (SslMode::Require, None),
            "verify-ca" => (SslMode::Require, Some(Verify::Authority)),
            "verify-full" => (SslMode::Require, Some(Verify::Full)),
            _ => return Err("sslmode: expected disable, prefer, require, verify-ca or verify-full".to_owned()),
        };
        if roots == Roots::System && verify != Some(Verify::Full) {
            return Err("sslrootcert=system needs sslmode=verify-full".to_owned());
        }
        config.ssl_mode(mode);
        // Of several hosts the one that is the primary now.
        if config.get_hosts().len().max(config.get_hostaddrs().len()) > 1 {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("it names no host".to_owned());
        }
        if config.get_application_name().is_none() {
            config.application_name("fraiseql_subs");
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE);
        }
        let address = address(&config);
        Ok(Dsn { config, verify, roots, address })
    }

    /// Hosts and ports, without credentials.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Connects, and hands every notification to `notified` as it comes. The error names the server and what it said.
    pub async fn connect(&self, mut notified: impl FnMut(Notification) + Send + 'static) -> Result<Link, String> {
        let tls = self.tls().map_err(|reason| self.at(&reason))?;
        let connected = self.config.connect(MakeRustlsConnect::new(tls)).await;
        let (client, mut connection) = connected.map_err(|error| self.at(&reason(&error)))?;
        let driver = tokio::spawn(async move {
            loop {
                match std::future::poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(notification))) => notified(notification),
                    Some(Ok(_)) => {}
                    // Dropped, the connection ends, and whoever waits for an answer is told.
                    Some(Err(error)) => return reason(&error),
                    None => return "the connection was closed".to_owned(),
                }
            }
        });
        Ok(Link { client: Arc::new(client), driver })
    }

    /// A reason with the server that it is about.
    pub fn at(&self, reason: &str) -> String {
        format!("PostgreSQL at {}: {reason}", self.address)
    }

    fn tls(&self) -> Result<ClientConfig, String> {
        let own = || std::env::home_dir().map(|home| home.join(".postgresql/root.crt")).filter(|path| path.exists());
        let file = match &self.roots {
            Roots::File(path) => Some(path.clone()),
            Roots::Usual => own(),
            Roots::System => None,
        };
        let verify = self.verify.unwrap_or(if file.is_some() { Verify::Authority } else { Verify::Nothing });
        let roots = match file {
            _ if verify == Verify::Nothing => Vec::new(),
            Some(path) => tls::of_file(&path)?,
            None => tls::of_system(),
        };
        tls::client(verify, roots)
    }
}

/// What went wrong, with all that led to it; a server's own words where it spoke.
pub fn reason(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

fn address(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
    let name = |(at, host): (usize, &Host)| match host {
        Host::Tcp(host) if host.contains(':') => format!("[{host}]:{}", port(at)),
        Host::Tcp(host) => format!("{host}:{}", port(at)),
        Host::Unix(path) => format!("{}:{}", path.display(), port(at)),
    };
    let mut names: Vec<String> = config.get_hosts().iter().enumerate().map(name).collect();
    if names.is_empty() {
        names = config.get_hostaddrs().iter().enumerate().map(|(at, host)| format!("{host}:{}", port(at))).collect();
    }
    names.join(", ")
}

/// What is left of a DSN, and the options taken out of it.
type Taken = (String, Vec<(String, String)>);

fn is_own(key: &str) -> bool {
    matches!(key, "sslmode" | "sslrootcert")
}

fn take_from_url(text: &str) -> Result<Taken, String> {
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    let is_name = |key: &str| key.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let (mut rest, mut own) = (Vec::new(), Vec::new());
    for option in query.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some((key, value)) if is_own(key) => own.push((key.to_owned(), percent_decoded(value)?)),
            Some((key, _)) if is_name(key) => rest.push(option),
            _ => return Err(format!("an option is not of the form `name=value`; {WRITTEN}")),
        }
    }
    // The first ends the password, and what follows would be the name of a host.
    if base.matches('@').count() > 1 {
        return Err(format!("there is more than one `@`; {WRITTEN}"));
    }
    let question = if rest.is_empty() { "" } else { "?" };
    Ok((format!("{base}{question}{}", rest.join("&")), own))
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let code = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.ok_or("a percent sign is not followed by two hexadecimal digits")?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_err(|_| "an option is not UTF-8".to_owned())
}

fn take_from_keywords(text: &str) -> Result<Taken, String> {
    let (mut rest, mut own) = (String::new(), Vec::new());
    let mut left = text.trim_start();
    while !left.is_empty() {
        let (key, after) = left.split_once('=').ok_or("expected a URL, or words of the form `keyword=value`")?;
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            return Err("expected a URL, or words of the form `keyword=value`".to_owned());
        }
        let after = after.trim_start();
        let (quoted, after) = after.strip_prefix('\'').map_or((false, after), |after| (true, after));
        let mut value = String::new();
        let mut letters = after.char_indices();
        let end = loop {
            match letters.next() {
                Some((_, '\\')) => value.extend(letters.next().map(|(_, letter)| letter)),
                Some((at, '\'')) if quoted => break at + 1,
                Some((at, letter)) if !quoted && letter.is_whitespace() => break at,
                Some((_, letter)) => value.push(letter),
                None if quoted => return Err("a quote is not closed".to_owned()),
                None => break after.len(),
            }
        };
        left = after[end..].trim_start();
        if is_own(key) {
            own.push((key.to_owned(), value));
        } else {
            _ = write!(rest, "{key}='{}' ", value.replace('\\', "\\\\").replace('\'', "\\'"));
        }
    }
    Ok((rest, own))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
