//! What can go wrong, as values: errors that a client may see, and reasons why a request or a publish is refused.

use std::borrow::Cow;
use std::fmt::Write as _;

pub use crate::value::{GraphQLError, PathStep};

use crate::value::{Value, write_string};

/// The `extensions.code` of an error, as clients see it.
pub mod code {
    /// The text is no GraphQL document.
    pub const PARSE_FAILED: &str = "GRAPHQL_PARSE_FAILED";
    /// The document does not fit the schema.
    pub const VALIDATION_FAILED: &str = "GRAPHQL_VALIDATION_FAILED";
    /// The operation name is missing or unknown.
    pub const OPERATION_RESOLUTION_FAILURE: &str = "OPERATION_RESOLUTION_FAILURE";
    /// An argument or a variable does not fit its type.
    pub const BAD_USER_INPUT: &str = "BAD_USER_INPUT";
    /// The viewer may not.
    pub const FORBIDDEN: &str = "FORBIDDEN";
    /// A limit is reached.
    pub const LIMIT_EXCEEDED: &str = "LIMIT_EXCEEDED";
    /// Subscribes come too fast.
    pub const RATE_LIMITED: &str = "RATE_LIMITED";
    /// A function took longer than its time-out.
    pub const TIMEOUT: &str = "TIMEOUT";
    /// One message would be larger than `max_result_bytes`.
    pub const RESULT_TOO_LARGE: &str = "RESULT_TOO_LARGE";
    /// The bus is away.
    pub const BUS_UNAVAILABLE: &str = "BUS_UNAVAILABLE";
    /// A resume token cannot be honoured.
    pub const HISTORY_LOST: &str = "HISTORY_LOST";
    /// The bus keeps no history.
    pub const RESUME_UNAVAILABLE: &str = "RESUME_UNAVAILABLE";
    /// Anything else.
    pub const INTERNAL_SERVER_ERROR: &str = "INTERNAL_SERVER_ERROR";
}

impl GraphQLError {
    /// An error with a code.
    pub fn new(code: &'static str, message: impl Into<Cow<'static, str>>) -> GraphQLError {
        GraphQLError { message: message.into(), code: Cow::Borrowed(code), ..GraphQLError::default() }
    }

    /// The same at a place of the document.
    #[must_use]
    pub fn at(mut self, line: usize, column: usize) -> GraphQLError {
        self.locations.push((line, column));
        self
    }

    /// Appends it as JSON.
    pub fn write_json(&self, out: &mut String) {
        out.push_str("{\"message\":");
        write_string(&self.message, out);
        if !self.locations.is_empty() {
            out.push_str(",\"locations\":[");
            for (at, (line, column)) in self.locations.iter().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                _ = write!(out, "{comma}{{\"line\":{line},\"column\":{column}}}");
            }
            out.push(']');
        }
        if !self.path.is_empty() {
            out.push_str(",\"path\":[");
            for (at, step) in self.path.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                match step {
                    PathStep::Key(key) => write_string(key, out),
                    PathStep::Index(index) => _ = write!(out, "{index}"),
                }
            }
            out.push(']');
        }
        self.write_extensions(out);
        out.push('}');
    }

    fn write_extensions(&self, out: &mut String) {
        let own = self.extensions.as_object();
        let has_code = own.is_some_and(|members| members.contains_key("code"));
        let members = own.into_iter().flatten().map(|(key, value)| (&**key, value));
        let code = Value::string(&*self.code);
        let code = (!has_code && !self.code.is_empty()).then_some(("code", &code));
        for (at, (key, value)) in code.into_iter().chain(members).enumerate() {
            out.push_str(if at == 0 { ",\"extensions\":{" } else { "," });
            write_string(key, out);
            out.push(':');
            value.write_json(out);
        }
        if code.is_some() || own.is_some_and(|members| !members.is_empty()) {
            out.push('}');
        }
    }
}

/// A list of errors as a JSON array.
pub fn errors_json(errors: &[GraphQLError]) -> String {
    let mut out = String::from("[");
    for (at, error) in errors.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        error.write_json(&mut out);
    }
    out.push(']');
    out
}

/// A security module, as metrics and audit records name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// The row filter.
    Rows,
    /// Tenant isolation.
    Tenant,
    /// Field access.
    Fields,
    /// The federation boundary.
    Sources,
    /// Variable scope.
    Scope,
}

/// Why somebody is refused: for operators alone. Clients are told "Forbidden", whatever it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Forbidden")]
pub struct Refusal {
    /// Which module refused; `None` where the authority itself has ended.
    pub module: Option<Module>,
    /// In words, with the rule.
    pub reason: Cow<'static, str>,
}

impl Refusal {
    /// A module's refusal.
    pub fn by(module: Module, reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { module: Some(module), reason: reason.into() }
    }

    /// The authority has ended.
    pub fn ended(reason: &'static str) -> Refusal {
        Refusal { module: None, reason: reason.into() }
    }
}

/// Why a request is refused; nothing was started.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// The document, its variables or its size are at fault.
    #[error("{}", .0.first().map_or("request refused", |error| &*error.message))]
    Request(Vec<GraphQLError>),
    /// The viewer may not.
    #[error(transparent)]
    Forbidden(#[from] Refusal),
    /// A limit is reached: a code and what is said of it.
    #[error("{1}")]
    Limited(&'static str, &'static str),
    /// The token cannot be honoured.
    #[error("the history that the token stands for is gone")]
    HistoryLost,
    /// The bus keeps no history.
    #[error("this bus keeps no history to resume from")]
    ResumeUnavailable,
    /// The bus is away.
    #[error("{0}")]
    BusUnavailable(String),
    /// The manager is not running.
    #[error("the server is stopping")]
    Stopped,
}

impl Rejection {
    /// A request that is wrong in one way.
    pub fn request(code: &'static str, message: impl Into<Cow<'static, str>>) -> Rejection {
        Rejection::Request(vec![GraphQLError::new(code, message)])
    }

    /// The errors as a client sees them.
    pub fn errors(&self) -> Vec<GraphQLError> {
        let code = match self {
            Rejection::Request(errors) => return errors.clone(),
            Rejection::Forbidden(_) => code::FORBIDDEN,
            Rejection::Limited(code, _) => code,
            Rejection::HistoryLost => code::HISTORY_LOST,
            Rejection::ResumeUnavailable => code::RESUME_UNAVAILABLE,
            // The server's own words about its bus are not for clients.
            Rejection::BusUnavailable(_) => return vec![GraphQLError::new(code::BUS_UNAVAILABLE, "Bus unavailable")],
            Rejection::Stopped => code::INTERNAL_SERVER_ERROR,
        };
        vec![GraphQLError::new(code, self.to_string())]
    }
}
