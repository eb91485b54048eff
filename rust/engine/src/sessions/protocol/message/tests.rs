use super::*;

#[test]
fn a_next_message_carries_the_escaped_id_and_the_body_as_it_is() {
    let body = r#"{"data":{"n":1}}"#;
    for (id, written) in [("1", r#""1""#), ("a\"b\\c\n", r#""a\"b\\c\n""#), ("é…🦀", r#""é…🦀""#)] {
        let expected = format!(r#"{{"id":{written},"type":"next","payload":{body}}}"#);
        assert_eq!(next(id, body, None), expected);
    }
}

#[test]
fn extensions_stand_before_the_last_brace_of_the_result() {
    let extensions = r#"{"dropped":2}"#;
    let body = r#"{"data":null,"errors":[{"message":"}"}]}"#;
    let expected = r#"{"data":null,"errors":[{"message":"}"}],"extensions":{"dropped":2}}"#;
    assert_eq!(result(body, Some(extensions)), expected);
    assert_eq!(result(body, None), body);
    assert_eq!(next("1", body, Some(extensions)), format!(r#"{{"id":"1","type":"next","payload":{expected}}}"#));
}

#[test]
fn error_and_complete_are_written_as_the_protocol_says() {
    assert_eq!(
        error("\u{1}", r#"[{"message":"no"}]"#),
        r#"{"id":"\u0001","type":"error","payload":[{"message":"no"}]}"#
    );
    assert_eq!(complete("1"), r#"{"id":"1","type":"complete"}"#);
}

#[test]
fn a_message_is_written_without_growing_its_buffer() {
    let text = message(Some("1"), "error", Some("[]"));
    assert_eq!(text.capacity(), text.len());
}
