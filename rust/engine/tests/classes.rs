//! Who shares a call, and who shares a plan: equal keys for what a function could not tell apart, other keys for all else.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use cases::config;
use chrono::DateTime;
use fraiseql_subs_engine::admission::{Admitted, Gate};
use fraiseql_subs_engine::delivery::ClassKey;
use fraiseql_subs_engine::graphql::{Operation, Request, Schema, SchemaInput};
use fraiseql_subs_engine::value::{Value, write_string};
use fraiseql_subs_engine::viewer::Viewer;
use limits::limits;
use proptest::prelude::*;
use serde_json::json;

#[path = "common/cases.rs"]
mod cases;
#[path = "common/limits.rs"]
mod limits;

const SDL: &str = r#"
    type Subscription {
        plain(any: JSON, id: ID, text: String, int: Int, float: Float, in: In, ids: [ID], made: Made, at: DateTime): Thing
        other(any: JSON, id: ID, text: String, int: Int, float: Float, in: In, ids: [ID], made: Made, at: DateTime): Thing
        watched(any: JSON, id: ID, text: String, int: Int, float: Float, in: In, ids: [ID], made: Made, at: DateTime): Thing
    }
    type Thing { a: String b: String c(any: JSON, first: Int): Thing d: String e: String }
    input In { a: JSON b: ID c: In }
    enum Made { HERE THERE }
    scalar JSON
    scalar DateTime
"#;

static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let declaration =
        |field: &str| json!({"field": field, "function": field, "channel": "c", "takes_info": field == "watched"});
    let declarations = json!([declaration("plain"), declaration("other"), declaration("watched")]);
    let input = SchemaInput {
        sdl: SDL.into(),
        declarations: serde_json::from_value(declarations).unwrap(),
        requires: serde_json::from_value(json!({"Thing.d": [["x"], ["y", "z"]], "Thing.e": [["y"]]})).unwrap(),
        ..SchemaInput::default()
    };
    Schema::build(input).unwrap()
});

fn gate() -> Gate {
    Gate::new(Arc::clone(&SCHEMA), &limits(), false)
}

fn viewer(key: &str, held: &[&str]) -> Arc<Viewer> {
    let permissions = held.iter().map(|permission| Box::from(*permission)).collect();
    Arc::new(Viewer { key: key.into(), permissions, ..Viewer::default() })
}

fn admit(gate: &Gate, query: &str, name: Option<&str>, variables: &str, viewer: &Arc<Viewer>) -> Operation {
    let variables = Value::parse(variables.as_bytes()).unwrap();
    let request = Request { query, operation_name: name, variables: &variables, introspection: true };
    match gate.admit(&request, viewer, DateTime::UNIX_EPOCH) {
        Ok(Admitted::Subscription(admission)) => admission.operation,
        other => panic!("{query}\n{variables:?}\n{other:?}"),
    }
}

// ---- JSON that can be written in more than one way ------------------------------------------------------------------------

/// Typed JSON. A number is `0` or digits that do not end in zero, and a power of ten; it is written in some of its ways.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Typed {
    Null,
    Bool(bool),
    Number(i128, i32),
    Text(String),
    List(Vec<Typed>),
    Object(BTreeMap<String, Typed>),
}

/// Writes JSON, or a GraphQL literal, and takes a choice wherever there is one.
struct Writer<'a> {
    choices: &'a mut dyn Iterator<Item = u8>,
    literal: bool,
}

impl Writer<'_> {
    fn choice(&mut self, of: u8) -> u8 {
        self.choices.next().unwrap_or(0) % of
    }

    fn write(&mut self, value: &Typed) -> String {
        match value {
            Typed::Null => "null".into(),
            Typed::Bool(flag) => flag.to_string(),
            Typed::Number(digits, power) => self.number(*digits, *power),
            Typed::Text(text) => quoted(text),
            Typed::List(items) => {
                let items: Vec<String> = items.iter().map(|item| self.write(item)).collect();
                format!("[{}]", items.join([",", " , "][usize::from(self.choice(2))]))
            }
            Typed::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                if !members.is_empty() {
                    let turns = usize::from(self.choice(8)) % members.len();
                    members.rotate_left(turns);
                }
                let mut written = Vec::new();
                if !self.literal && self.choice(4) == 0 && !members.is_empty() {
                    // Of duplicate keys the last one counts.
                    written.push(format!("{}:[\"not this\"]", quoted(members[0].0)));
                }
                for (key, value) in members {
                    let key = if self.literal { key.clone() } else { quoted(key) };
                    written.push(format!("{key}: {}", self.write(value)));
                }
                format!("{{{}}}", written.join(","))
            }
        }
    }

    fn number(&mut self, digits: i128, power: i32) -> String {
        if digits == 0 {
            return ["0", "0.0", "-0", "-0.0", "0e5", "-0.0E-7"][usize::from(self.choice(6))].into();
        }
        if digits.abs() > 1_000 {
            return digits.to_string();
        }
        match self.choice(4) {
            0 if (0..30).contains(&power) => format!("{digits}{}", "0".repeat(power as usize)),
            1 if (0..20).contains(&power) => format!("{digits}{}.0", "0".repeat(power as usize)),
            2 => format!("{digits}0e{}", power - 1),
            3 => format!("{digits}.00E{}{power}", if power < 0 { "" } else { "+" }),
            _ => format!("{digits}e{power}"),
        }
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::new();
    write_string(text, &mut out);
    out
}

/// What could be taken for the structure around it.
const TEXTS: [&str; 16] =
    ["", "1", "1.0", "true", "null", "a", ",", "\"", "\\", "\",\"", "a\":1,\"b", "{}", "}{", "é", "e\u{301}", "\u{1}"];

fn number() -> impl Strategy<Value = Typed> {
    let digits =
        prop::sample::select(vec![1, -1, 2, 15, -7, 42, 9_007_199_254_740_993_i128, 18_446_744_073_709_551_617]);
    prop_oneof![
        1 => Just(Typed::Number(0, 0)),
        // Large ones are written as integers only: what looks like a float is the nearest one.
        4 => (digits, -3..3i32).prop_map(|(digits, power)| match digits.abs() < 1_000 {
            true => Typed::Number(digits, power),
            false => Typed::Number(digits, 0),
        }),
        1 => Just(Typed::Number(1, 25)),
    ]
}

fn typed() -> impl Strategy<Value = Typed> {
    let leaf = prop_oneof![
        1 => Just(Typed::Null),
        2 => any::<bool>().prop_map(Typed::Bool),
        4 => number(),
        4 => prop::sample::select(TEXTS.to_vec()).prop_map(|text| Typed::Text(text.into())),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let keys = prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Typed::List),
            prop::collection::btree_map(keys, inner, 0..3).prop_map(Typed::Object),
        ]
    })
}

// ---- Who shares a call ----------------------------------------------------------------------------------------------------

/// What one subscriber asks for: a field, its arguments by name with the value that they are coerced to, a viewer and a selection.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    field: &'static str,
    arguments: BTreeMap<&'static str, (Typed, Typed)>,
    viewer: &'static str,
    selected: Vec<&'static str>,
}

/// An argument, as it is given and as it is coerced.
fn argument() -> impl Strategy<Value = (&'static str, (Typed, Typed))> {
    let same = |name: &'static str| move |value: Typed| (name, (value.clone(), value));
    let id = |value: Typed| match value {
        Typed::Number(digits, 0) => Typed::Text(digits.to_string()),
        other => other,
    };
    let ids = || {
        prop_oneof![
            prop::sample::select(vec![
                Typed::Number(1, 0),
                Typed::Number(42, 0),
                Typed::Number(18_446_744_073_709_551_617, 0)
            ]),
            prop::sample::select(vec!["1", "42", "", "1.0", "1,42", "18446744073709551617"])
                .prop_map(|id| Typed::Text(id.into())),
        ]
    };
    prop_oneof![
        6 => typed().prop_map(same("any")),
        2 => ids().prop_map(move |value| ("id", (value.clone(), id(value)))),
        2 => prop::sample::select(TEXTS.to_vec()).prop_map(|text| Typed::Text(text.into())).prop_map(same("text")),
        1 => (0..3i128).prop_map(|int| Typed::Number(int, 0)).prop_map(same("int")),
        2 => number().prop_filter("a float", |number| matches!(number, Typed::Number(n, -9..9) if n.abs() < 1_000)).prop_map(same("float")),
        2 => prop::collection::vec(ids(), 0..3).prop_map(move |items| {
            let coerced = items.iter().cloned().map(id).collect();
            ("ids", (Typed::List(items), Typed::List(coerced)))
        }),
        // One item is a list of it.
        1 => ids().prop_map(move |value| ("ids", (value.clone(), Typed::List(vec![id(value)])))),
        2 => typed().prop_map(|any| Typed::Object([("a".into(), any)].into())).prop_map(same("in")),
        1 => ids().prop_map(move |value| {
            let object = |value| Typed::Object([("c".into(), Typed::Object([("b".into(), value)].into()))].into());
            ("in", (object(value.clone()), object(id(value))))
        }),
        1 => prop::sample::select(vec!["HERE", "THERE"]).prop_map(|made| Typed::Text(made.into())).prop_map(same("made")),
        1 => prop::sample::select(vec!["2026-01-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"])
            .prop_map(|at| Typed::Text(at.into())).prop_map(same("at")),
        1 => prop::sample::select(vec!["any", "id", "text", "int", "float", "in", "ids", "made", "at"])
            .prop_map(|name| (name, (Typed::Null, Typed::Null))),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    (
        prop::sample::select(vec!["plain", "other", "watched", "watched"]),
        prop::collection::vec(argument(), 0..3),
        prop::sample::select(vec!["[\"int\",\"1\"]", "[\"str\",\"1\"]", "[\"uuid\",\"1\"]", "", "a,b", "a"]),
        prop::sample::subsequence(vec!["a", "b", "c", "d"], 1..4).prop_shuffle(),
    )
        .prop_map(|(field, arguments, viewer, selected)| Asked {
            field,
            arguments: arguments.into_iter().collect(),
            viewer,
            selected,
        })
}

/// A subscriber and one who asks for the same but for a part.
fn two_asked() -> impl Strategy<Value = (Asked, Asked)> {
    (asked(), asked(), 0..6u8).prop_map(|(one, other, part)| {
        let mut two = one.clone();
        match part {
            0 => two.field = other.field,
            1 => two.arguments = other.arguments,
            2 => two.arguments.extend(other.arguments),
            3 => two.viewer = other.viewer,
            4 => two.selected = other.selected,
            _ => {}
        }
        (one, two)
    })
}

impl Asked {
    /// A function's field, arguments and, where it takes `info`, viewer and selection.
    fn class(&self) -> impl PartialEq + std::fmt::Debug {
        let arguments: BTreeMap<&str, Typed> =
            self.arguments.iter().map(|(name, (_, coerced))| (*name, coerced.clone())).collect();
        (self.field, arguments, (self.field == "watched").then(|| (self.viewer, self.selected.clone())))
    }

    fn admit(&self, gate: &Gate, choices: &mut dyn Iterator<Item = u8>) -> (Operation, Arc<ClassKey>) {
        let (mut header, mut arguments, mut variables) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (name, (given, _))) in self.arguments.iter().enumerate() {
            let literal = choices.next().unwrap_or(0).is_multiple_of(2);
            let integer = matches!(name, &"int" | &"id" | &"ids") || (*name == "in" && is_nested_id(given));
            // What is no integer in its form is none to these.
            let mut plain = std::iter::repeat(0);
            let mut writer = Writer { choices: if integer { &mut plain } else { &mut *choices }, literal };
            let written = writer.write(given);
            if literal {
                let written = if *name == "made" { written.trim_matches('"').to_owned() } else { written };
                arguments.push(format!("{name}: {written}"));
                continue;
            }
            let ty = match *name {
                "any" => "JSON",
                "id" => "ID",
                "text" => "String",
                "int" => "Int",
                "float" => "Float",
                "in" => "In",
                "ids" => "[ID]",
                "made" => "Made",
                _ => "DateTime",
            };
            header.push(format!("$v{at}: {ty}"));
            arguments.push(format!("{name}: $v{at}"));
            variables.push(format!("\"v{at}\": {written}"));
        }
        let parenthesised = |items: Vec<String>| match items.is_empty() {
            true => String::new(),
            false => format!("({})", items.join(", ")),
        };
        let aliased = choices.next().unwrap_or(0).is_multiple_of(2);
        let field = |(at, name): (usize, &&str)| match (*name, aliased) {
            ("c", _) => "c { a }".into(),
            (name, true) => format!("x{at}: {name}"),
            (name, false) => name.to_owned(),
        };
        let selected: Vec<String> = self.selected.iter().enumerate().map(field).collect();
        let query = format!(
            "subscription{} {{ {}{} {{ __typename {} }} }}",
            parenthesised(header),
            self.field,
            parenthesised(arguments),
            selected.join(" ")
        );
        let viewer = viewer(self.viewer, &["x"]);
        let operation = admit(gate, &query, None, &format!("{{{}}}", variables.join(",")), &viewer);
        let key = ClassKey::of(&operation, &viewer).0;
        (operation, key)
    }
}

fn is_nested_id(value: &Typed) -> bool {
    matches!(value, Typed::Object(members) if members.contains_key("c"))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn two_share_a_call_exactly_when_a_function_could_not_tell_them_apart(
        (one, two) in two_asked(), choices in prop::collection::vec(any::<u8>(), 32..64),
    ) {
        let gate = gate();
        let mut choices = choices.into_iter().cycle();
        let [(first, first_key), (second, second_key)] = [&one, &two].map(|asked| asked.admit(&gate, &mut choices));
        prop_assert_eq!(
            first_key == second_key, one.class() == two.class(),
            "{} {:?}\n{} {:?}", first.arguments_key, first_key, second.arguments_key, second_key
        );
        prop_assert_eq!(first.arguments_key == second.arguments_key, first.arguments == second.arguments);
    }

    /// Canonical text is what keys are made of.
    #[test]
    fn canonical_text_is_equal_exactly_for_equal_values(
        one in typed(), two in typed(), same in any::<bool>(), choices in prop::collection::vec(any::<u8>(), 32..64),
    ) {
        let two = if same { one.clone() } else { two };
        let mut choices = choices.into_iter().cycle();
        let [first, second] = [&one, &two].map(|typed| {
            let text = Writer { choices: &mut choices, literal: false }.write(typed);
            Value::parse(text.as_bytes()).unwrap()
        });
        prop_assert_eq!(first.canonical() == second.canonical(), one == two, "{} {}", first.canonical(), second.canonical());
        prop_assert_eq!(first == second, one == two);
    }

    /// Equal: the document, which of its operations, the variables below the root, and what of the guards on the way the viewer has.
    #[test]
    fn two_share_a_plan_exactly_when_their_results_look_alike(
        (one, two) in ((0..2usize, typed(), typed(), held()), (0..2usize, typed(), typed(), held())), part in 0..5u8,
        choices in prop::collection::vec(any::<u8>(), 32..64),
    ) {
        let two = match part {
            0 => (two.0, one.1.clone(), one.2.clone(), one.3.clone()),
            1 => (one.0, two.1, one.2.clone(), one.3.clone()),
            2 => (one.0, one.1.clone(), two.2, one.3.clone()),
            3 => (one.0, one.1.clone(), one.2.clone(), two.3),
            _ => one.clone(),
        };
        let query = "subscription A($root: JSON, $inner: JSON) { plain(any: $root) { a c(any: $inner) { d } } }
                     subscription B($root: JSON, $inner: JSON) { plain(any: $root) { a c(any: $inner) { d } e } }";
        let gate = gate();
        let mut choices = choices.into_iter().cycle();
        let [(first, mask), (second, other_mask)] = [&one, &two].map(|(name, root, inner, held)| {
            let [root, inner] = [root, inner].map(|value| Writer { choices: &mut choices, literal: false }.write(value));
            let variables = format!("{{\"root\": {root}, \"inner\": {inner}}}");
            let d = held.contains(&"x") || (held.contains(&"y") && held.contains(&"z"));
            let mask = (d, *name == 1 && held.contains(&"y"));
            (admit(&gate, query, Some(["A", "B"][*name]), &variables, &viewer("", held)), mask)
        });
        let alike = (one.0, &one.2, mask) == (two.0, &two.2, other_mask);
        prop_assert_eq!(Arc::ptr_eq(&first.plan, &second.plan), alike);
        prop_assert_eq!(first.arguments_key == second.arguments_key, one.1 == two.1);
    }
}

fn held() -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(vec!["x", "y", "z", "other"], 0..4)
}
