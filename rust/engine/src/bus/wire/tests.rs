use super::*;

fn event(audience: Audience, previous: Option<&str>, data: &str) -> Event {
    let json = |text: &str| Value::parse(text.as_bytes()).expect("JSON");
    Event {
        id: "an \"id\"".into(),
        event_type: "paid\n".into(),
        channel: "orders".into(),
        audience,
        source: Some("ü".into()),
        published_at: DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("a time"),
        data: json(data),
        size: data.len(),
        previous: previous.map(json),
        position: Position { epoch: 3, offset: 4 },
    }
}

#[test]
fn every_event_comes_back_as_it_was() {
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(MAX_NESTING - 1), "]".repeat(MAX_NESTING - 1));
    let audiences = [
        Audience::All,
        Audience::Tenant(None),
        Audience::Tenant(Some("".into())),
        Audience::Tenant(Some("true".into())),
    ];
    for audience in audiences {
        for data in ["{}", r#"{"v":2,"data":{"id":12345678901234567890},"x":[1.5,null]}"#, &deep] {
            for previous in [None, Some("{}"), Some(r#"{"data":1}"#)] {
                let event = event(audience.clone(), previous, data);
                let text = encode(&event);
                assert!(!text.contains('\n'));
                let back = decode(text.as_bytes(), &event.channel, event.position).expect("ours");
                assert_eq!(encode(&back), text);
                assert_eq!(back.audience, event.audience);
                assert_eq!((back.channel, back.position), (event.channel, event.position));
            }
        }
    }
}

#[test]
fn what_is_not_ours_says_why() {
    let cases = [
        ("", "not JSON"),
        ("[]", "no object"),
        ("{}", "no version"),
        (r#"{"v":2,"id":"a","type":"b","at":1,"data":{}}"#, "version 2"),
        (r#"{"v":1,"type":"b","at":1,"data":{}}"#, "no id"),
        (r#"{"v":1,"id":"a","type":1,"at":1,"data":{}}"#, "type is no text"),
        (r#"{"v":1,"id":"a","type":"b","at":"1","data":{}}"#, "no time"),
        (r#"{"v":1,"id":"a","type":"b","at":1,"data":[]}"#, "data is no object"),
        (r#"{"v":1,"id":"a","type":"b","at":1}"#, "data is no object"),
        (r#"{"v":1,"id":"a","type":"b","at":1,"data":{},"all":false}"#, "all is not true"),
        (r#"{"v":1,"id":"a","type":"b","at":1,"data":{},"all":true,"tenant":"t"}"#, "all is not true"),
        (r#"{"v":1,"id":"a","type":"b","at":1,"data":{"a":"\u0000"}}"#, "contains NUL"),
    ];
    for (text, expected) in cases {
        let error = decode(text.as_bytes(), &"c".into(), Position::default()).expect_err(text);
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn a_revocation_comes_back() {
    let given = Revocation { user_id: Some("u".into()), tenant_id: None, connection_id: Some("".into()) };
    let event = revocation(&given, "me");
    let back = decode(encode(&event).as_bytes(), &event.channel, event.position).expect("ours");
    assert_eq!((revoked(&back), back.source.as_deref()), (given, Some("me")));
}
