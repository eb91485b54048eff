//! Values in messages, as Python shows them.

use crate::value::{Value, write_float};

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

/// Appends a value as Python would show it, up to about `longest` bytes.
pub(super) fn write_python(value: &Value, longest: usize, out: &mut String) {
    if out.len() > longest {
        return;
    }
    match value {
        Value::Null | Value::Failed(_) => out.push_str("None"),
        Value::Bool(flag) => out.push_str(if *flag { "True" } else { "False" }),
        Value::Int(_) | Value::Number(_) => value.write_json(out),
        Value::Float(number) => write_float(*number, out),
        Value::String(text) => quote(text, longest, out),
        Value::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate().take(longest) {
                out.push_str(if at > 0 { ", " } else { "" });
                write_python(item, longest, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (at, (name, member)) in members.iter().enumerate().take(longest) {
                out.push_str(if at > 0 { ", " } else { "" });
                quote(name, longest, out);
                out.push_str(": ");
                write_python(member, longest, out);
            }
            out.push('}');
        }
    }
}

fn quote(text: &str, longest: usize, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for letter in text.chars().take(longest + 1) {
        if letter == mark || letter == '\\' || letter.is_control() {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    out.push(mark);
}
