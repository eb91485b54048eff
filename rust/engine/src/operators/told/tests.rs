use chrono::DateTime;

use super::super::audit::{Record, Writer};
use super::*;
use crate::clock::Clock;
use crate::event::{Audience, Position};
use crate::matching::ChannelTemplate;
use crate::value::{Object, Value};

/// Keeps what it is told.
#[derive(Default)]
struct Kept(Mutex<Vec<String>>);

impl Writer for Kept {
    fn write(&self, _record: Record) {}

    fn warn(&self, text: String) {
        self.0.lock().push(text);
    }
}

impl Kept {
    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

fn told(channels: &[(&str, &[&str])]) -> (Told, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let channels: Vec<_> = channels
        .iter()
        .map(|(text, types)| {
            let template = ChannelTemplate::parse(text, &|_| None).expect("a channel");
            (*text, template, types.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        })
        .collect();
    let declared = channels.iter().map(|(text, template, types)| (*text, template, Some(types.as_slice())));
    let audit = Arc::new(Audit::new(kept.clone(), &Clock::system()));
    (Told::new(audit, Arc::default(), Declared::new(declared), Box::default()), kept)
}

fn event(event_type: &str, channel: &str) -> Event {
    Event {
        id: "1".into(),
        event_type: event_type.into(),
        channel: channel.into(),
        audience: Audience::Tenant(None),
        source: None,
        published_at: DateTime::UNIX_EPOCH,
        data: Value::Object(Object::default()),
        size: 2,
        previous: None,
        position: Position::default(),
    }
}

#[test]
fn an_ill_typed_comparison_is_told_once_for_each_field_and_path() {
    let (told, kept) = told(&[]);
    for _ in 0..3 {
        for (field, path) in [("a", "amount"), ("a", "at"), ("b", "amount")] {
            told.compared(field, path, &path);
        }
    }
    let begin = |line: String| line.split('.').next().map(str::to_owned).unwrap_or_default();
    assert_eq!(kept.taken().into_iter().map(begin).collect::<Vec<_>>(), ["a: amount", "a: at", "b: amount"]);
}

#[test]
fn what_is_told_is_bounded_by_kind() {
    let (told, kept) = told(&[("orders", &["paid"])]);
    for number in 0..2 * MOST {
        told.compared("a", number, &number);
    }
    let lines = kept.taken();
    assert_eq!(lines.len(), MOST);
    let last = |line: &String| line.ends_with("this is the last time.");
    assert_eq!(lines.iter().position(last), Some(MOST - 1));
    for number in 0..2 * MOST {
        told.event(&event("paid", &format!("{number}")));
        told.event(&event(&format!("{number}"), "orders"));
    }
    assert_eq!(kept.taken().len(), 2 * MOST);
    for text in ["x", "y"] {
        told.event(&event(text, text));
    }
    assert!(kept.taken().is_empty());
}

#[test]
fn names_that_are_built_alike_are_told_once() {
    let (told, kept) = told(&[("orders", &["paid"])]);
    for number in 0..3 {
        told.event(&event("paid", &format!("order:{number}")));
    }
    assert_eq!(kept.taken().len(), 1);
    told.event(&event("paid", "order:1:2"));
    told.event(&event("paid", "cart:1"));
    assert_eq!(kept.taken().len(), 2);
}

#[test]
fn the_text_says_what_there_is_and_what_to_do() {
    let channels: &[(&str, &[&str])] = &[("orders", &["paid", "sent"]), ("carts", &["left"])];
    let (told, kept) = told(channels);
    let long = "n".repeat(100_000);
    for (event_type, channel, parts) in [
        ("orders", "paid", ["\"orders\" is a channel here", "publish_event(event_type, channel, data)"]),
        ("paid", "order", ["\"carts\", \"orders\"", "If only other services read this channel"]),
        ("insert", "orders", ["\"paid\", \"sent\"", "Tracked tables publish this type"]),
        ("pay", "orders", ["\"pay\"", "event_types"]),
        (&long, "orders", ["n…", "event_types"]),
        ("a\nb", "order\nx", ["a\\nb", "order\\nx"]),
    ] {
        told.event(&event(event_type, channel));
        let lines = kept.taken();
        assert_eq!(lines.len(), 1, "{event_type} {channel}");
        assert!(parts.iter().all(|part| lines[0].contains(part)), "{}", lines[0]);
        assert!(lines[0].len() < 1000 && !lines[0].contains('\n'));
    }
    told.event(&event("paid", "orders"));
    assert!(kept.taken().is_empty());
}
