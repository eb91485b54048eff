use super::*;
use crate::matching::Placeholder;

fn declared(declarations: &[(&str, Option<&[&str]>)]) -> Declared {
    let placeholder = |name: &str| Some(Placeholder { name: name.into(), is_taken: true, ty: "ID!".into() });
    let read: Vec<_> = declarations
        .iter()
        .map(|(text, types)| {
            let types = types.map(|types| types.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            (*text, ChannelTemplate::parse(text, &placeholder).expect("a template"), types)
        })
        .collect();
    Declared::new(read.iter().map(|(text, template, types)| (*text, template, types.as_deref())))
}

fn verdict(declared: &Declared, channel: &str, event_type: &str) -> String {
    match declared.names(channel, event_type) {
        Named::Yes => "yes".into(),
        Named::NoChannel => "no channel".into(),
        Named::NoType(channel) => format!("{}: {}", channel.text, channel.types().join(" ")),
    }
}

#[test]
fn an_event_is_named_by_its_channel_and_its_type_there() {
    let declared = declared(&[
        ("orders", Some(&["placed", "paid"])),
        ("orders", Some(&["gone"])),
        ("users:{id}", None),
        ("carts:{id}:items", Some(&["added"])),
        ("carts:{id}:items", Some(&["left"])),
        ("all", Some(&["x"])),
        ("all", None),
    ]);
    for (channel, event_type, expected) in [
        ("orders", "paid", "yes"),
        ("orders", "gone", "yes"),
        ("orders", "insert", "orders: gone paid placed"),
        ("Orders", "paid", "no channel"),
        ("orders:1", "paid", "no channel"),
        ("users:1", "anything", "yes"),
        ("users:", "anything", "yes"),
        ("users:a%3Ab", "anything", "yes"),
        ("users", "anything", "no channel"),
        ("users:1:2", "anything", "no channel"),
        ("carts:1:items", "left", "yes"),
        ("carts:1:items", "lost", "carts:{id}:items: added left"),
        ("carts:1", "added", "no channel"),
        ("carts:1:item", "added", "no channel"),
        ("carts:1:items:2", "added", "no channel"),
        ("all", "y", "yes"),
    ] {
        assert_eq!(verdict(&declared, channel, event_type), expected, "{channel} {event_type}");
    }
    assert_eq!(declared.texts(), ["all", "carts:{id}:items", "orders", "users:{id}"]);
}

#[test]
fn where_two_channels_can_have_one_name_either_may_name_the_event() {
    let declared = declared(&[("a:{x}", Some(&["one"])), ("{x}:b", Some(&["two"])), ("a:b", Some(&["three"]))]);
    for event_type in ["one", "two", "three"] {
        assert_eq!(verdict(&declared, "a:b", event_type), "yes");
    }
    assert_eq!(verdict(&declared, "a:b", "four"), "{x}:b: two");
    assert_eq!(verdict(&declared, "a:c", "three"), "a:{x}: one");
}

#[test]
fn a_schema_of_generators_names_nothing() {
    assert_eq!(verdict(&declared(&[]), "orders", "paid"), "no channel");
}
