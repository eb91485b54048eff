use super::*;

fn set(names: &[&str]) -> HashSet<Box<str>> {
    names.iter().map(|name| Box::from(*name)).collect()
}

fn only(names: &[&str]) -> Option<Sources> {
    Some(Sources::Only(Arc::new(names.iter().map(|name| Box::from(*name)).collect())))
}

#[test]
fn field_and_viewer_must_both_allow_a_source() {
    let declared = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(intersect(None, None), Some(Sources::Any));
    assert_eq!(intersect(Some(&declared(&["b", "a", "b"])), None), only(&["a", "b"]));
    assert_eq!(intersect(None, Some(&set(&["a"]))), only(&["a"]));
    assert_eq!(intersect(Some(&declared(&["a", "b"])), Some(&set(&["b", "c"]))), only(&["b"]));
    for (field, viewer) in [(Some(vec![]), None), (None, Some(set(&[]))), (Some(declared(&["a"])), Some(set(&["b"])))] {
        assert_eq!(intersect(field.as_deref(), viewer.as_ref()), None, "{field:?} {viewer:?}");
    }
}

#[test]
fn an_event_without_source_is_from_nowhere() {
    for source in [None, Some(""), Some("a"), Some("A"), Some("b")] {
        assert_eq!(Sources::Any.decide(source), Decision::Allow);
        let sources = only(&["a"]).unwrap_or_default();
        assert_eq!(sources.decide(source), Decision::allow_if(source == Some("a")), "{source:?}");
    }
}
