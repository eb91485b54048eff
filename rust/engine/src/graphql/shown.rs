//! What came in, as messages show it: values as Python shows them, and nothing at length.

use std::fmt::{self, Display, Write as _};

use crate::value::{Value, write_float};

/// A text, or a literal as it was written, up to so many bytes.
pub(super) fn text(shown: impl Display, longest: usize) -> String {
    let mut out = Cut::new(longest);
    // It fails where there is no more room.
    _ = write!(out, "{shown}");
    out.finish()
}

/// A value as Python would show it, up to so many bytes.
pub(super) fn python(value: &Value, longest: usize) -> String {
    let mut out = Cut::new(longest);
    _ = write_python(value, &mut out);
    out.finish()
}

/// A text that takes no more than some bytes: whatever the length of what came, showing it costs no more.
struct Cut {
    text: String,
    longest: usize,
    is_full: bool,
}

impl Cut {
    fn new(longest: usize) -> Cut {
        Cut { text: String::new(), longest, is_full: false }
    }

    fn finish(mut self) -> String {
        if self.is_full {
            self.text.push('…');
        }
        self.text
    }
}

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.longest - self.text.len();
        if !self.is_full && text.len() <= room {
            self.text.push_str(text);
            return Ok(());
        }
        if !self.is_full {
            let end = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            self.text.push_str(&text[..end]);
            self.is_full = true;
        }
        Err(fmt::Error)
    }
}

/// A float as Python prints it; Rust's own form differs in its exponent and in NaN.
pub(super) fn python_float(number: f64) -> String {
    let text = format!("{number:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
        None => text.to_lowercase(),
    }
}

fn write_python(value: &Value, out: &mut Cut) -> fmt::Result {
    match value {
        Value::Null | Value::Failed(_) => out.write_str("None"),
        Value::Bool(flag) => out.write_str(if *flag { "True" } else { "False" }),
        Value::Int(number) => write!(out, "{number}"),
        Value::Number(text) => out.write_str(text),
        Value::Float(number) => {
            let mut text = String::new();
            write_float(*number, &mut text);
            out.write_str(&text)
        }
        Value::String(text) => quote(text, out),
        Value::List(items) => {
            out.write_char('[')?;
            for (at, item) in items.iter().enumerate() {
                out.write_str(if at > 0 { ", " } else { "" })?;
                write_python(item, out)?;
            }
            out.write_char(']')
        }
        Value::Object(members) => {
            out.write_char('{')?;
            for (at, (name, member)) in members.iter().enumerate() {
                out.write_str(if at > 0 { ", " } else { "" })?;
                quote(name, out)?;
                out.write_str(": ")?;
                write_python(member, out)?;
            }
            out.write_char('}')
        }
    }
}

fn quote(text: &str, out: &mut Cut) -> fmt::Result {
    // More of it is not shown.
    let seen = text.as_bytes().get(..out.longest).unwrap_or(text.as_bytes());
    let mark = if seen.contains(&b'\'') && !seen.contains(&b'"') { '"' } else { '\'' };
    out.write_char(mark)?;
    for letter in text.chars() {
        if letter == mark || letter == '\\' || letter.is_control() {
            write!(out, "{}", letter.escape_default())?;
        } else {
            out.write_char(letter)?;
        }
    }
    out.write_char(mark)
}
