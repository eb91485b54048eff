//! Which events the declarations of a schema name: their channels, and the types on each. It stands beside the index, not on an event's
//! way: whoever is not found here can never be heard of, whoever subscribes.

use foldhash::{HashMap, HashSet};

use super::channel::ChannelTemplate;

/// The channels that declarations name, with the types of events on each.
#[derive(Debug, Default)]
pub struct Declared {
    /// Without placeholders, by name.
    names: HashMap<Box<str>, DeclaredChannel>,
    /// With placeholders.
    templates: Vec<DeclaredChannel>,
}

/// One channel as it is written in declarations.
#[derive(Debug)]
pub struct DeclaredChannel {
    /// Its template.
    pub text: Box<str>,
    template: ChannelTemplate,
    /// What the declarations are about; `None` is any type.
    types: Option<HashSet<Box<str>>>,
}

/// Whether declarations name an event.
#[derive(Clone, Copy, Debug)]
pub enum Named<'a> {
    /// Its channel, and its type there.
    Yes,
    /// No channel of theirs can be its channel.
    NoChannel,
    /// This channel can, and no declaration on it is about its type.
    NoType(&'a DeclaredChannel),
}

impl Declared {
    /// What these declarations name: a channel's text, what it was read to, and the types; `None` are all types.
    pub fn new<'a>(
        declarations: impl IntoIterator<Item = (&'a str, &'a ChannelTemplate, Option<&'a [String]>)>,
    ) -> Declared {
        let mut declared = Declared::default();
        for (text, template, types) in declarations {
            let types = types.map(|types| types.iter().map(|name| name.as_str().into()).collect::<HashSet<_>>());
            let known = if text.contains('{') {
                declared.templates.iter_mut().find(|known| *known.text == *text)
            } else {
                declared.names.get_mut(text)
            };
            if let Some(known) = known {
                known.types = known.types.take().zip(types).map(|(mut all, more)| {
                    all.extend(more);
                    all
                });
                continue;
            }
            let channel = DeclaredChannel { text: text.into(), template: template.clone(), types };
            if text.contains('{') {
                declared.templates.push(channel);
            } else {
                declared.names.insert(text.into(), channel);
            }
        }
        declared
    }

    /// Whether an event of this type on this channel is named.
    pub fn names(&self, channel: &str, event_type: &str) -> Named<'_> {
        let mut found = Named::NoChannel;
        for declared in self.of(channel) {
            if declared.is_about(event_type) {
                return Named::Yes;
            }
            found = Named::NoType(declared);
        }
        found
    }

    /// Whether a channel of this name is declared.
    pub fn has(&self, channel: &str) -> bool {
        self.of(channel).next().is_some()
    }

    /// Every channel's text, in order.
    pub fn texts(&self) -> Vec<&str> {
        let mut texts: Vec<&str> = self.names.values().chain(&self.templates).map(|channel| &*channel.text).collect();
        texts.sort_unstable();
        texts
    }

    fn of(&self, channel: &str) -> impl Iterator<Item = &DeclaredChannel> {
        let templates = self.templates.iter().filter(move |declared| declared.template.gives(channel));
        self.names.get(channel).into_iter().chain(templates)
    }
}

impl DeclaredChannel {
    /// The types that its declarations are about, in order; none where they are about any.
    pub fn types(&self) -> Vec<&str> {
        let mut types: Vec<&str> = self.types.iter().flatten().map(|name| &**name).collect();
        types.sort_unstable();
        types
    }

    fn is_about(&self, event_type: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(event_type))
    }
}

#[cfg(test)]
mod tests {
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
}
