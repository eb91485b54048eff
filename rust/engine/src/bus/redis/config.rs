//! Where the server is and how it is spoken to; checked before anything is connected.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};
use serde::Deserialize;

use crate::bus::tls::Verify;
use crate::bus::{BusError, WRITTEN};

/// The arguments of `EventBusConfig.redis`. It has no `Debug`: the URL may hold a password.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://`, `rediss://` or `unix://`.
    pub url: String,
    /// The application: its prefix of all keys.
    pub consumer_group: String,
    /// How many events each channel keeps.
    pub history: u32,
    /// How long, in seconds.
    pub history_age: f64,
    /// Seconds.
    pub connect_timeout: f64,
    /// Seconds.
    pub publish_timeout: f64,
}

/// The same, valid.
pub(super) struct Settings {
    pub(super) server: ConnectionInfo,
    /// How far the server's certificate is checked, where it has one.
    pub(super) verify: Verify,
    /// Authorities that are trusted beside the system's.
    pub(super) authorities: Option<PathBuf>,
    /// Host and port, or the socket's path, for texts.
    pub(super) place: String,
    /// Of all keys and of all pub/sub channels; ends before the colon.
    pub(super) prefix: String,
    pub(super) history: u32,
    pub(super) age: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) publish_timeout: Duration,
}

/// A hundred years.
const LONGEST: f64 = 3.2e9;

impl RedisConfig {
    pub(super) fn check(&self) -> Result<Settings, BusError> {
        let seconds = |name: &str, given: f64, most: f64| match Duration::try_from_secs_f64(given) {
            Ok(duration) if given <= most && duration >= Duration::from_millis(1) => Ok(duration),
            _ => Err(refused(format!("{name}: expected seconds, more than 0 and up to {most}, got {given}"))),
        };
        if self.consumer_group.is_empty() || self.consumer_group.contains('\0') {
            return Err(refused("consumer_group: expected text without NUL, not empty"));
        }
        let (server, verify, authorities) = server(&self.url)?;
        let place = match server.addr() {
            ConnectionAddr::Unix(path) => path.display().to_string(),
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            }
            _ => return Err(refused("url: this kind of address is not supported")),
        };
        Ok(Settings {
            server,
            verify,
            authorities,
            place,
            // No two groups share a key: `:` only ever ends the group's name.
            prefix: self.consumer_group.replace('%', "%25").replace(':', "%3A"),
            history: self.history,
            age: seconds("history_age", self.history_age, LONGEST)?,
            connect_timeout: seconds("connect_timeout", self.connect_timeout, 86_400.0)?,
            publish_timeout: seconds("publish_timeout", self.publish_timeout, 86_400.0)?,
        })
    }
}

fn refused(reason: impl Into<Cow<'static, str>>) -> BusError {
    BusError::Refused(reason.into().into_owned())
}

/// The server, and what its TLS is asked for; no text of these errors quotes the URL.
fn server(url: &str) -> Result<(ConnectionInfo, Verify, Option<PathBuf>), BusError> {
    const EXPECTED: &str = "url: expected redis://[user:password@]host[:port][/database], the same with rediss:// for TLS \
                            [?ssl_cert_reqs=&ssl_ca_certs=], or unix:///path[?db=&user=&pass=]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let is_socket = scheme.ends_with("unix");
    // What stands before an `@` there may be a part of the password.
    let is_cut = !is_socket && rest.find(['/', '?', '#']).is_some_and(|end| rest[end..].contains('@'));
    let unlike = |problem: &str| refused(format!("{EXPECTED}; {}", if is_cut { WRITTEN } else { problem }));
    let parsed = redis::parse_redis_url(url).ok_or_else(|| unlike("it is no such URL"))?;
    let known: &[&str] = match scheme {
        _ if is_socket => &["db", "user", "pass"],
        "rediss" | "valkeys" => &["ssl_cert_reqs", "ssl_ca_certs"],
        _ => &[],
    };
    if let Some((key, _)) = parsed.query_pairs().find(|(key, _)| !known.contains(&&**key)) {
        return Err(unlike(&format!("unknown option `{}`", key.escape_debug())));
    }
    if parsed.fragment().is_some() {
        return Err(unlike("it has a part that begins with `#`"));
    }
    if is_socket && !matches!(parsed.host_str(), None | Some("")) {
        return Err(unlike("the path of a socket is absolute"));
    }
    let option = |name: &str| parsed.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value);
    let verify = match option("ssl_cert_reqs").as_deref() {
        Some("none") => Verify::Nothing,
        // To a client these are the same.
        None | Some("optional" | "required") => Verify::Full,
        Some(_) => return Err(unlike("ssl_cert_reqs: expected none, optional or required")),
    };
    let authorities = option("ssl_ca_certs").map(|path| PathBuf::from(&*path));
    let info = url.into_connection_info().map_err(|error| unlike(error.category()))?;
    let settings = info.redis_settings();
    if !(0..=i64::from(u32::MAX)).contains(&settings.db()) {
        return Err(unlike("the database is a number from 0"));
    }
    if settings.username().is_some() && settings.password().is_none() {
        return Err(unlike("a user needs a password"));
    }
    // What is not said needs no right to say it.
    let settings = settings.clone().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name();
    Ok((info.set_redis_settings(settings), verify, authorities))
}

#[cfg(test)]
mod tests;
