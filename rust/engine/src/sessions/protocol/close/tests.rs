use super::*;

#[test]
fn a_reason_is_cut_between_characters() {
    for length in 80..130 {
        for character in ["x", "é", "…", "🦀"] {
            let id: String = character.repeat(length);
            for close in [Close::already_exists(&id), Close::new(4000, id.clone())] {
                assert!(close.reason().len() <= Close::MAX_REASON, "{close:?}");
            }
        }
    }
    assert_eq!(Close::new(4000, "x".repeat(122)).reason(), "x".repeat(122));
    assert_eq!(Close::new(4000, "x".repeat(123)).reason(), format!("{}…", "x".repeat(119)));
    assert_eq!(Close::already_exists(&"y".repeat(92)).reason().len(), Close::MAX_REASON);
    assert!(Close::already_exists(&"y".repeat(92)).reason().ends_with("y already exists"));
    assert!(Close::already_exists(&"y".repeat(93)).reason().ends_with("y… already exists"));
}
