//! Why a socket is closed.

use std::borrow::Cow;

/// Why a socket is closed: a code and a reason that fits into a close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    code: u16,
    reason: Cow<'static, str>,
}

impl Close {
    /// The server stops.
    pub const GOING_AWAY: Close = Close::fixed(1001, "Going away");
    /// A frame of more than `max_message_bytes`.
    pub const MESSAGE_TOO_BIG: Close = Close::fixed(1009, "Message too big");
    /// The server stops and will be back.
    pub const SERVICE_RESTART: Close = Close::fixed(1012, "Service restart");
    /// A reader too slow, under `overflow="disconnect"`.
    pub const SLOW_CONSUMER: Close = Close::fixed(1013, "Slow consumer");
    /// `max_connections` is reached.
    pub const TOO_MANY_CONNECTIONS: Close = Close::fixed(1013, "Too many connections");
    /// A subscribe before the ack.
    pub const UNAUTHORIZED: Close = Close::fixed(4401, "Unauthorized");
    /// Too many connections of one user or tenant.
    pub const TOO_MANY_OF_ACCOUNT: Close = Close::fixed(4403, "Too many connections");
    /// The auth handler said no, or the viewer's rights have ended.
    pub const FORBIDDEN: Close = Close::fixed(4403, "Forbidden");
    /// The client does not offer [`SUBPROTOCOL`].
    pub const SUBPROTOCOL_NOT_ACCEPTABLE: Close = Close::fixed(4406, "Subprotocol not acceptable");
    /// No ack in time.
    pub const INIT_TIMEOUT: Close = Close::fixed(4408, "Connection initialisation timeout");
    /// No pong in time.
    pub const PONG_TIMEOUT: Close = Close::fixed(4408, "Pong timeout");
    /// A second `connection_init`.
    pub const TOO_MANY_INITS: Close = Close::fixed(4429, "Too many initialisation requests");
    /// Our own fault.
    pub const INTERNAL_SERVER_ERROR: Close = Close::fixed(4500, "Internal server error");

    /// The longest reason in bytes: a close frame holds 125, two of which are the code; kept one below for all clients.
    pub const MAX_REASON: usize = 122;

    /// A close with a reason, which is cut where it is too long.
    pub fn new(code: u16, reason: impl Into<Cow<'static, str>>) -> Close {
        let mut reason = reason.into();
        if reason.len() > Close::MAX_REASON {
            reason = Cow::Owned(ellipsis(&reason, Close::MAX_REASON));
        }
        Close { code, reason }
    }

    /// The status code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The reason, for people.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    const fn fixed(code: u16, reason: &'static str) -> Close {
        assert!(reason.len() <= Close::MAX_REASON);
        Close { code, reason: Cow::Borrowed(reason) }
    }

    /// A frame that is no message of the protocol; `detail` says why.
    pub fn invalid(detail: &str) -> Close {
        Close::new(4400, format!("Invalid message received: {detail}"))
    }

    pub(super) fn already_exists(id: &str) -> Close {
        let room = Close::MAX_REASON - "Subscriber for  already exists".len();
        Close::new(4409, format!("Subscriber for {} already exists", ellipsis(id, room)))
    }
}

/// The text, or its beginning with an ellipsis, in at most `room` bytes.
fn ellipsis(text: &str, room: usize) -> String {
    if text.len() <= room {
        return text.to_owned();
    }
    let mut end = room - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests;
