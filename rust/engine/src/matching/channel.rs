//! The channel that a subscription listens to: a template with placeholders for arguments, checked when the schema is built, filled in
//! when a subscription starts.

use crate::error::{Rejection, code};
use crate::value::Value;

/// A channel's name with placeholders for arguments.
#[derive(Clone, Debug)]
pub struct ChannelTemplate {
    /// Text, and the Python name of the argument that follows it.
    parts: Vec<(Box<str>, Box<str>)>,
    rest: Box<str>,
}

/// What a placeholder has to know of its argument.
pub(crate) struct Placeholder {
    /// Whether it always has a value that is a scalar or an enum.
    pub(crate) is_scalar: bool,
    /// Its type, for messages.
    pub(crate) ty: String,
}

impl ChannelTemplate {
    /// Reads a template. `argument` knows the arguments by Python name.
    pub(crate) fn parse(text: &str, argument: &dyn Fn(&str) -> Option<Placeholder>) -> Result<ChannelTemplate, String> {
        if text.is_empty() || text.contains(char::is_control) {
            return Err("expected a channel that is not empty and holds no control character".into());
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').unwrap_or(("{", after));
            if before.contains('}') || name.contains('{') {
                return Err(format!("channel \"{text}\": a brace stands alone, expected {{argument}}"));
            }
            let found = argument(name).ok_or_else(|| format!("channel \"{text}\": there is no argument \"{name}\""))?;
            if !found.is_scalar {
                return Err(format!(
                    "channel \"{text}\": argument \"{name}\" is {}, expected a non-null scalar",
                    found.ty
                ));
            }
            parts.push((before.into(), name.into()));
            rest = after;
        }
        if rest.contains('}') {
            return Err(format!("channel \"{text}\": a brace stands alone, expected {{argument}}"));
        }
        let rest = rest.into();
        Ok(ChannelTemplate { parts, rest })
    }

    /// The channel's name for these arguments, by Python name. A value cannot reach beyond its own place: `:` and control
    /// characters are refused.
    pub fn render(&self, arguments: &Value) -> Result<String, Rejection> {
        let mut channel = String::new();
        for (before, name) in &self.parts {
            let text = match arguments.get(name) {
                Some(Value::String(text)) => text.to_string(),
                Some(value @ (Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Number(_))) => value.to_json(),
                _ => String::from(":"),
            };
            if text.contains(':') || text.contains(char::is_control) {
                let message = format!(
                    "Argument '{name}' is part of a channel's name: it must be a scalar without ':' or control characters."
                );
                return Err(Rejection::request(code::BAD_USER_INPUT, message));
            }
            channel.push_str(before);
            channel.push_str(&text);
        }
        channel.push_str(&self.rest);
        if channel.is_empty() {
            let message = "The arguments give an empty channel name.";
            return Err(Rejection::request(code::BAD_USER_INPUT, message));
        }
        Ok(channel)
    }
}

impl ChannelTemplate {
    /// Whether some arguments give this name.
    pub(crate) fn gives(&self, name: &str) -> bool {
        let mut rest = name;
        for (before, _) in &self.parts {
            let Some(after) = rest.strip_prefix(&**before) else {
                return false;
            };
            // A value ends where the next `:` is.
            rest = after.find(':').map_or("", |end| &after[end..]);
        }
        *rest == *self.rest
    }
}
