//! Names of channels: templates with placeholders for arguments, checked when the schema is built, filled in when a subscription
//! starts or a publisher asks for a name. It knows no schema, only what that says of an argument.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::error::{Rejection, code};
use crate::value::Value;

/// The longest name of a channel, in bytes.
const LONGEST_NAME: usize = 1024;

/// A channel's name with placeholders for arguments: segments between `:`, each of them a text or one placeholder. A value is
/// written without `:`, so two lists of values never give one name.
#[derive(Clone, Debug)]
pub struct ChannelTemplate {
    segments: Box<[Segment]>,
    /// The bytes that the values leave as they are.
    fixed: usize,
}

/// What stands between two `:`.
#[derive(Clone, Debug)]
enum Segment {
    Text(Box<str>),
    Placeholder(Argument),
}

/// The argument whose value a placeholder stands for.
#[derive(Clone, Debug)]
struct Argument {
    /// As templates call it.
    python_name: Box<str>,
    /// As clients call it.
    name: Box<str>,
}

/// What a placeholder has to know of its argument.
pub(crate) struct Placeholder {
    /// The argument's GraphQL name.
    pub(crate) name: Box<str>,
    /// Whether a template takes its type.
    pub(crate) is_taken: bool,
    /// Its type, for messages.
    pub(crate) ty: String,
}

impl ChannelTemplate {
    /// Reads a template. `argument` knows the arguments by Python name.
    pub(crate) fn parse(text: &str, argument: &dyn Fn(&str) -> Option<Placeholder>) -> Result<ChannelTemplate, String> {
        if text.is_empty() || text.contains(char::is_control) {
            return Err("expected a channel that is not empty and holds no control character".into());
        }
        let wrong = |problem: String| format!("channel \"{text}\": {problem}");
        let segment = |segment: &str| {
            if !segment.contains(['{', '}']) {
                return Ok(Segment::Text(segment.into()));
            }
            let inside = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let python_name = inside.filter(|inside| !inside.contains(['{', '}'])).ok_or_else(|| {
                wrong(format!(
                    "\"{segment}\" is neither a text without braces nor one placeholder: expected each placeholder alone \
                     between \":\" or the ends, as in \"orders:{{order_id}}\""
                ))
            })?;
            let found =
                argument(python_name).ok_or_else(|| wrong(format!("there is no argument \"{python_name}\"")))?;
            if !found.is_taken {
                return Err(wrong(format!(
                    "argument \"{python_name}\" is {}, expected a non-null ID, String, Int, Boolean, UUID or enum",
                    found.ty
                )));
            }
            Ok(Segment::Placeholder(Argument { python_name: python_name.into(), name: found.name }))
        };
        let segments: Box<[Segment]> = text.split(':').map(segment).collect::<Result<_, String>>()?;
        let texts: usize = segments.iter().map(|segment| segment.text().map_or(0, str::len)).sum();
        let fixed = texts + segments.len() - 1;
        if fixed > LONGEST_NAME {
            return Err(format!("the channel's texts have {fixed} bytes, expected at most {LONGEST_NAME}"));
        }
        Ok(ChannelTemplate { segments, fixed })
    }

    /// Whether some arguments give this name.
    pub(crate) fn gives(&self, name: &str) -> bool {
        let mut given = name.split(':');
        let fits = self.segments.iter().all(|segment| match (segment, given.next()) {
            (Segment::Text(text), Some(given)) => **text == *given,
            (Segment::Placeholder(_), Some(given)) => is_escaped(given),
            (_, None) => false,
        });
        fits && given.next().is_none()
    }

    /// The channel's name for these arguments, by Python name.
    pub fn render(&self, arguments: &Value) -> Result<String, Rejection> {
        let text = |argument: &Argument| match arguments.get(&argument.python_name)? {
            Value::String(text) => Some(Cow::Borrowed(&**text)),
            Value::Int(number) => Some(Cow::Owned(number.to_string())),
            Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
            // Null, where a type with a default is nullable.
            _ => None,
        };
        self.fill(&text).map_err(|(argument, problem)| {
            Rejection::request(code::BAD_USER_INPUT, format!("Argument '{}' {problem}.", argument.name))
        })
    }

    /// The name that these values give, or the first that gives none, and why.
    fn fill<'a>(&self, value: &dyn Fn(&Argument) -> Option<Cow<'a, str>>) -> Result<String, (&Argument, String)> {
        let mut name = String::with_capacity(self.fixed);
        let mut room = LONGEST_NAME - self.fixed;
        for (position, segment) in self.segments.iter().enumerate() {
            if position > 0 {
                name.push(':');
            }
            let argument = match segment {
                Segment::Text(text) => {
                    name.push_str(text);
                    continue;
                }
                Segment::Placeholder(argument) => argument,
            };
            let wrong = |problem: &str| (argument, format!("is part of a channel's name: {problem}"));
            let too_long = || wrong(&format!("the name would be longer than {LONGEST_NAME} bytes"));
            let value = value(argument).ok_or_else(|| wrong("it must not be null"))?;
            // Before it is looked at: it may be as long as a message.
            if value.len() > room {
                return Err(too_long());
            }
            let before = name.len();
            for letter in value.chars() {
                match letter {
                    '%' => name.push_str("%25"),
                    ':' => name.push_str("%3A"),
                    _ if letter.is_control() => return Err(wrong("it must not hold control characters")),
                    _ => name.push(letter),
                }
            }
            room = room.checked_sub(name.len() - before).ok_or_else(too_long)?;
            if name.is_empty() && self.segments.len() == 1 {
                return Err(wrong("the name would be empty"));
            }
        }
        Ok(name)
    }

    /// Whether one name may come of both templates, and a placeholder of one stands where the other has a text. Types are not
    /// asked: whoever publishes to such a name would have to know them.
    pub(crate) fn collides(&self, other: &ChannelTemplate) -> bool {
        let pairs = || self.segments.iter().zip(&other.segments);
        let mixed = |(a, b): (&Segment, &Segment)| a.text().is_some() != b.text().is_some();
        self.segments.len() == other.segments.len()
            && pairs().any(mixed)
            && pairs().all(|(a, b)| match (a.text(), b.text()) {
                (Some(a), Some(b)) => a == b,
                (Some(text), None) | (None, Some(text)) => is_escaped(text),
                (None, None) => true,
            })
    }
}

impl Segment {
    fn text(&self) -> Option<&str> {
        match self {
            Segment::Text(text) => Some(text),
            Segment::Placeholder(_) => None,
        }
    }
}

/// The name that these values give a template, for a publisher: the very one that a subscription with them listens to. The error
/// names what is wrong with the template or with a value.
pub fn channel_name(template: &str, values: &BTreeMap<String, String>) -> Result<String, String> {
    let argument = |name: &str| {
        values.contains_key(name).then(|| Placeholder { name: name.into(), is_taken: true, ty: String::new() })
    };
    let template = ChannelTemplate::parse(template, &argument)?;
    let is_used = |name: &str| {
        let is_it =
            |segment: &Segment| matches!(segment, Segment::Placeholder(argument) if *argument.python_name == *name);
        template.segments.iter().any(is_it)
    };
    if let Some(name) = values.keys().find(|name| !is_used(name)) {
        return Err(format!("the channel has no placeholder for \"{name}\""));
    }
    let text = |argument: &Argument| values.get(&*argument.python_name).map(|text| Cow::Borrowed(text.as_str()));
    template.fill(&text).map_err(|(argument, problem)| format!("argument \"{}\" {problem}", argument.name))
}

/// What is wrong with the name of a channel, as it goes behind its subject.
pub(crate) fn name_problem(name: &str) -> Option<String> {
    if name.is_empty() {
        Some("must not be empty".to_owned())
    } else if name.len() > LONGEST_NAME {
        Some(format!("has {} bytes, expected at most {LONGEST_NAME}", name.len()))
    } else if name.contains(char::is_control) {
        Some("must not hold control characters".to_owned())
    } else {
        None
    }
}

/// Whether a text may be what a value is written as.
fn is_escaped(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| rest.starts_with("25") || rest.starts_with("3A"))
}

#[cfg(test)]
mod tests;
