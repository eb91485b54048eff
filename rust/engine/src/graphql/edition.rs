//! What the [September 2025 edition](https://spec.graphql.org/September2025/) has and apollo-compiler has not: descriptions in
//! documents, a subscription's one response key, variables anywhere in a custom scalar, and `isOneOf`. Each is mended round it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use apollo_compiler::ast::{Argument, Value};
use apollo_compiler::diagnostic::{Diagnostic, ToCliReport as _};
use apollo_compiler::executable::{ExecutableDocument, Field, Operation, Selection, SelectionSet};
use apollo_compiler::response::serde_json_bytes::ByteString;
use apollo_compiler::response::{JsonMap, JsonValue};
use apollo_compiler::validation::DiagnosticData;
use apollo_compiler::{Name, Node, Schema, name, ty};
use apollo_parser::{Token, TokenKind};

/// What a description at the top of a document may stand before.
const DESCRIBED: [&str; 4] = ["query", "mutation", "subscription", "fragment"];

/// The [descriptions](https://spec.graphql.org/September2025/#sec-Descriptions) of operations, fragments and variables, found while
/// the tokens of a document are counted.
#[derive(Default)]
pub(super) struct Descriptions {
    before: Option<TokenKind>,
    /// A text that is one if the next token is what it describes.
    candidate: Option<Range<usize>>,
    found: Vec<Range<usize>>,
}

impl Descriptions {
    /// Takes the next token that is not ignored, and how many brackets are open behind it.
    pub(super) fn token(&mut self, token: &Token<'_>, depth: usize) {
        let is_described = match token.kind() {
            TokenKind::Name => depth == 0 && DESCRIBED.contains(&token.data()),
            TokenKind::Dollar => depth == 1,
            _ => false,
        };
        self.found.extend(self.candidate.take().filter(|_| is_described));
        let may_stand_here = match depth {
            0 => matches!(self.before, None | Some(TokenKind::RCurly)),
            // Otherwise it is a value.
            _ => depth == 1 && !matches!(self.before, Some(TokenKind::Eq | TokenKind::Colon)),
        };
        let place = token.index()..token.index() + token.data().len();
        self.candidate = (may_stand_here && token.kind() == TokenKind::StringValue).then_some(place);
        self.before = Some(token.kind());
    }

    /// The document with blanks in their places: what follows keeps its line and its column.
    pub(super) fn blank<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.found.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut blanked = String::with_capacity(text.len());
        let mut end = 0;
        for found in &self.found {
            blanked.push_str(&text[end..found.start]);
            let letters = text[found.clone()].chars();
            blanked.extend(letters.map(|letter| if matches!(letter, '\n' | '\r') { letter } else { ' ' }));
            end = found.end;
        }
        blanked.push_str(&text[end..]);
        Cow::Owned(blanked)
    }
}

/// Whether what apollo-compiler says is wrong with a document is wrong. Two things are not: a subscription that selects one response
/// key several times, and a variable that has not its place's own type, which is asked again with all of that type.
pub(super) fn is_wrong(error: &Diagnostic<'_, DiagnosticData>, document: &ExecutableDocument, text: &str) -> bool {
    let location = error.error.location();
    match error.error.unstable_error_name() {
        Some("SubscriptionUsesMultipleFields") => {
            let operation = document.operations.iter().find(|operation| operation.location() == location);
            let fields = operation.into_iter().flat_map(|operation| operation.root_fields(document));
            fields.map(|field| field.response_key()).collect::<HashSet<_>>().len() > 1
        }
        Some("UnsupportedValueType") => !location.is_some_and(|place| text[place.offset()..].starts_with('$')),
        _ => true,
    }
}

/// Whether two sets of arguments differ in a way that apollo-compiler, which has compared all else, overlooks: one list goes on where
/// the other ends.
pub(super) fn differ(one: &[Node<Argument>], other: &[Node<Argument>]) -> bool {
    one.iter().any(|one| other.iter().any(|other| one.name == other.name && values_differ(&one.value, &other.value)))
}

fn values_differ(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::List(one), Value::List(other)) => {
            one.len() != other.len() || one.iter().zip(other).any(|(one, other)| values_differ(one, other))
        }
        (Value::Object(one), Value::Object(other)) => one.iter().any(|(name, value)| {
            other.iter().any(|(other_name, other)| name == other_name && values_differ(value, other))
        }),
        _ => false,
    }
}

/// What stands before the response key of an `isOneOf` while introspection runs; no name has it.
const ASKED: &str = "?";

/// Gives `__Type` its [`isOneOf`](https://spec.graphql.org/September2025/#sec-The-__Type-Type).
pub(super) const IS_ONE_OF: &str = "extend type __Type { isOneOf: Boolean }";

/// Asks for the type's name in the place of each `isOneOf`: apollo-compiler answers nothing that it does not know.
pub(super) fn ask_is_one_of(document: &mut ExecutableDocument) {
    let set = |operation: &mut Node<Operation>| ask_in(&mut operation.make_mut().selection_set);
    document.operations.anonymous.iter_mut().for_each(set);
    document.operations.named.values_mut().for_each(set);
    document.fragments.values_mut().for_each(|fragment| ask_in(&mut fragment.make_mut().selection_set));
}

fn ask_in(set: &mut SelectionSet) {
    let is_type = set.ty == "__Type";
    for selection in &mut set.selections {
        match selection {
            Selection::Field(field) if is_type && field.name == "isOneOf" => {
                let field: &mut Field = field.make_mut();
                field.alias = Some(Name::new_unchecked(&format!("{ASKED}{}", field.response_key())));
                field.name = name!("name");
                field.definition.make_mut().ty = ty!(String);
            }
            Selection::Field(field) => ask_in(&mut field.make_mut().selection_set),
            Selection::InlineFragment(inline) => ask_in(&mut inline.make_mut().selection_set),
            Selection::FragmentSpread(_) => {}
        }
    }
}

/// Puts the answers of `isOneOf` in the place of the names that were asked for.
pub(super) fn answer_is_one_of(schema: &Schema, object: JsonMap) -> JsonMap {
    let answer = |(key, value): (ByteString, JsonValue)| match key.as_str().strip_prefix(ASKED) {
        Some(asked) => {
            let input = value.as_str().and_then(|name| schema.get_input_object(name));
            (asked.into(), input.map_or(JsonValue::Null, |input| input.directives.has("oneOf").into()))
        }
        None => (key, answer_in(schema, value)),
    };
    object.into_iter().map(answer).collect()
}

fn answer_in(schema: &Schema, value: JsonValue) -> JsonValue {
    match value {
        JsonValue::Object(object) => JsonValue::Object(answer_is_one_of(schema, object)),
        JsonValue::Array(items) => JsonValue::Array(items.into_iter().map(|item| answer_in(schema, item)).collect()),
        leaf => leaf,
    }
}
