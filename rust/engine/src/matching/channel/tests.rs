use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<ChannelTemplate, String> {
    let known = |name: &str| Some(Placeholder { name: name.into(), is_taken: true, ty: String::new() });
    ChannelTemplate::parse(text, &known)
}

fn name(template: &str, values: &[&str]) -> String {
    let named = values.iter().zip('a'..).map(|(value, name)| (name.to_string(), (*value).to_owned()));
    channel_name(template, &named.collect()).expect("a name")
}

/// What values may be written with, and parts of what they are written as.
const LETTERS: [&str; 8] = ["", "a", ":", "%", "2", "3A", "%3A", "{a}"];

/// All names that a template with at most two placeholders gives with short values.
fn names(template: &str) -> std::collections::BTreeSet<String> {
    let short = || LETTERS.iter().flat_map(|one| LETTERS.iter().map(move |two| format!("{one}{two}")));
    let holds = |name: &str| template.contains(name);
    let first = || short().filter(|value| holds("{a}") || value.is_empty());
    let second = || short().filter(|value| holds("{b}") || value.is_empty());
    let pairs = first().flat_map(|one| second().map(move |two| (one.clone(), two)));
    let given = pairs.filter_map(|(one, two)| {
        let values = [("a", one), ("b", two)].into_iter().filter(|(name, _)| holds(&format!("{{{name}}}")));
        channel_name(template, &values.map(|(name, value)| (name.to_owned(), value)).collect()).ok()
    });
    given.collect()
}

fn value() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(&LETTERS), 0..3).prop_map(|letters| letters.concat())
}

fn template() -> impl Strategy<Value = String> {
    let text =
        prop_oneof![Just(""), Just("a"), Just("2"), Just("%"), Just("%25"), Just("%3A"), Just("a%3"), Just("%a")];
    let segment = prop_oneof![3 => text, 1 => Just("{a}"), 1 => Just("{b}")];
    let segments = proptest::collection::vec(segment, 1..4);
    let is_usual = |text: &String| !text.is_empty() && ["{a}", "{b}"].iter().all(|name| text.matches(name).count() < 2);
    segments.prop_map(|segments| segments.join(":")).prop_filter("each placeholder once", is_usual)
}

#[test]
fn what_stands_beside_a_placeholder_is_refused() {
    for wrong in ["o-{a}-{b}", "o:x{a}", "{a}{b}", "{a} ", "{a", "a}", "{{a}}", "{a}:}", "o:{a:b}"] {
        let problem = parse(wrong).expect_err(wrong);
        assert!(problem.contains("as in \"orders:{order_id}\""), "{problem}");
    }
    for right in ["a", "{a}", ":", "{a}:", "a:{a}:%:{b}"] {
        assert!(parse(right).is_ok(), "{right}");
    }
}

#[test]
fn texts_and_values_share_the_room_of_a_name() {
    let longest = "é".repeat(512);
    assert!(parse(&longest).is_ok() && parse(&format!("{longest}x")).is_err());
    assert_eq!(name("x:{a}:{b}", &[&"y".repeat(500), &":".repeat(173)]).len(), 2 + 500 + 1 + 519);
    let over = BTreeMap::from([("a".to_owned(), "y".repeat(503)), ("b".to_owned(), ":".repeat(173))]);
    let expected = "argument \"b\" is part of a channel's name: the name would be longer than 1024 bytes";
    assert_eq!(channel_name("x:{a}:{b}", &over), Err(expected.to_owned()));
}

proptest! {
    #[test]
    fn two_lists_of_values_never_give_one_name(
        lists in proptest::collection::vec(proptest::array::uniform2(value()), 100),
    ) {
        for template in ["{a}:{b}", "x:{a}:{b}", "{a}:x:{b}", "{a}:%3A:{b}:x"] {
            let mut given = BTreeMap::new();
            for values in &lists {
                let name = name(template, &[&values[0], &values[1]]);
                let same = *given.entry(name.clone()).or_insert(values);
                prop_assert_eq!(same, values, "{}", name);
            }
        }
    }

    #[test]
    fn templates_collide_where_a_name_comes_of_both(one in template(), two in template()) {
        let [a, b] = [&one, &two].map(|text| parse(text).expect("a template"));
        let is_mixed = || a.segments.iter().zip(&b.segments).any(|(a, b)| a.text().is_some() != b.text().is_some());
        let is_shared = !names(&one).is_disjoint(&names(&two));
        prop_assert_eq!(a.collides(&b), is_shared && is_mixed(), "{} {}", one, two);
        prop_assert_eq!(a.collides(&b), b.collides(&a));
    }
}
