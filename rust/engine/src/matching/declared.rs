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
mod tests;
