use super::*;

fn guard(any: &[&[&str]]) -> Guard {
    let alternatives: Vec<Vec<Box<str>>> =
        any.iter().map(|all| all.iter().map(|one| Box::from(*one)).collect()).collect();
    Guard::from(alternatives)
}

fn viewer(user_id: Option<&str>, held: &[&str]) -> Viewer {
    let permissions = held.iter().map(|one| Box::from(*one)).collect();
    Viewer { user_id: user_id.map(Into::into), permissions, ..Viewer::default() }
}

fn is_permitted(guard: &Guard, viewer: &Viewer) -> bool {
    decide(guard, viewer).is_allowed()
}

#[test]
fn one_alternative_must_hold_as_a_whole() {
    let asked = guard(&[&["a", "b"], &["c"]]);
    for (held, expected) in [
        (&[][..], false),
        (&["a"], false),
        (&["b"], false),
        (&["a", "b"], true),
        (&["c"], true),
        (&["a", "c"], true),
        (&["C", "a b", "*"], false),
    ] {
        assert_eq!(is_permitted(&asked, &viewer(Some("u"), held)), expected, "{held:?}");
    }
}

#[test]
fn no_alternative_is_for_nobody_and_an_empty_one_for_everybody() {
    let (nobody, everybody) = (guard(&[]), guard(&[&["a"], &[]]));
    assert!(!is_permitted(&nobody, &viewer(Some("u"), &["a", ""])));
    assert!(is_permitted(&everybody, &viewer(None, &[])));
    assert_eq!(nobody.and(&everybody), nobody);
    assert_eq!(everybody.and(&Guard::authenticated()), Guard::authenticated());
    assert_eq!([nobody.to_string(), everybody.to_string()], ["is for nobody", "is for everybody"]);
}

#[test]
fn who_has_a_user_id_is_authenticated_and_nothing_else_counts() {
    let asked = Guard::authenticated();
    assert!(!is_permitted(&asked, &viewer(None, &["authenticated", "a user_id"])));
    assert!(is_permitted(&asked, &viewer(Some(""), &[])));
    let both = asked.and(&guard(&[&["a"], &["b"]]));
    assert!(!is_permitted(&both, &viewer(None, &["a", "b"])));
    assert!(!is_permitted(&both, &viewer(Some("u"), &[])));
    assert!(is_permitted(&both, &viewer(Some("u"), &["b"])));
}

#[test]
fn guards_that_mean_the_same_are_equal() {
    let or = guard(&[&["a"], &["b"]]);
    assert_eq!(or, guard(&[&["b"], &["a", "c"], &["a", "a"], &["b"]]));
    assert_eq!(or.and(&or), or);
    assert_eq!(or.and(&guard(&[&["a"]])), guard(&[&["a"]]));
    assert_eq!(or.and(&guard(&[&["c"]])), guard(&[&["c", "a"], &["b", "c"]]));
    assert_ne!(guard(&[&["a", "b"]]), or);
}

#[test]
fn a_refusal_says_what_is_asked_and_what_is_missing() {
    let asked = guard(&[&["b", "a"], &["c"]]).and(&Guard::authenticated());
    let told = |viewer: Viewer| refusal("Order.total", Some(&asked), &viewer).map(|refusal| refusal.reason);
    assert_eq!(
        told(viewer(Some("u"), &["a"])).as_deref(),
        Some("Order.total requires a user_id and 'c', or a user_id and 'a' and 'b'; the viewer lacks 'c', or 'b'")
    );
    assert_eq!(told(viewer(Some("u"), &["c"])), None);
    let nobody = refusal("Order.total", Some(&guard(&[])), &viewer(None, &[]));
    assert_eq!(nobody.map(|refusal| refusal.reason).as_deref(), Some("Order.total is for nobody"));
}

#[test]
fn guards_are_lists_of_lists_in_json() {
    let parsed: Guard = serde_json::from_str(r#"[["a", "b"], ["c"]]"#).expect("a guard");
    assert_eq!(parsed, guard(&[&["c"], &["b", "a"]]));
    for wrong in [r#"["a"]"#, r#""a""#, "[[1]]", "[[null]]", "{}", "null"] {
        assert!(serde_json::from_str::<Guard>(wrong).is_err(), "{wrong}");
    }
}
