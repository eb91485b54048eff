use super::*;

#[test]
fn nothing_is_kept_for_a_viewer_who_is_known() {
    let log = Arc::new(Revocations::default());
    let viewer = |id: &str| Arc::new(Viewer { user_id: Some(id.into()), ..Viewer::default() });
    let revocation = |id: String| Arc::new(Revocation { user_id: Some(id.into()), ..Revocation::default() });
    let kept = || log.log.lock().entries.len();
    let (one, other) = (viewer("1"), viewer("other"));
    let known = [&one, &other].map(|viewer| log.begin_of(viewer.clone(), None));
    (0..1_000).for_each(|id| log.note(revocation(id.to_string())));
    assert_eq!((kept(), known.each_ref().map(|known| known.is_revoked(&one, None))), (0, [true, false]));
    // Whose it is has still to be decided: all of them are kept.
    let open = log.begin();
    (0..1_000).for_each(|id| log.note(revocation(id.to_string())));
    assert_eq!((kept(), open.is_revoked(&one, None), open.is_revoked(&other, None)), (1_000, true, false));
    drop((open, known));
    assert_eq!(kept(), 0);
}
