use super::*;

#[test]
fn a_frame_is_read_when_it_is_there_and_not_before() {
    let told = b"*3\r\n$7\r\nmessage\r\n$2\r\na\n\r\n$0\r\n\r\n";
    for length in 0..told.len() {
        assert_eq!(frame(&told[..length]), Ok(None), "{length}");
    }
    let (length, items) = frame(&[told, &b"*1"[..]].concat()).expect("valid").expect("there");
    assert_eq!(length, told.len());
    let texts: Vec<&[u8]> = items.into_iter().map(|range| &told[range]).collect();
    assert_eq!(texts, [&b"message"[..], b"a\n", b""]);
}

#[test]
fn other_answers_are_told_apart() {
    assert_eq!(frame(b"+OK\r\n").map(|found| found.map(|(at, items)| (at, items.len()))), Ok(Some((5, 1))));
    assert_eq!(frame(b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n").map(|found| found.map(|(at, _)| at)), Ok(Some(31)));
    assert_eq!(frame(b"-WRONGPASS no\r\n"), Err("WRONGPASS no".to_owned()));
    for strange in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"$x\r\n", b"\n", b"*\n", b"$99999999999\r\n"] {
        assert!(frame(strange).is_err(), "{strange:?}");
    }
}

#[test]
fn servers_are_told_apart() {
    let info = |version: &str, mode: &str, role: &str| {
        format!(
            "# Server\r\nredis_version:{version}\r\nredis_mode:{mode}\r\nrun_id:abc\r\nrole:{role}\r\nloading:0\r\n"
        )
    };
    assert_eq!(check(&info("6.2.0", "standalone", "master")).as_deref(), Ok("abc"));
    assert_eq!(check(&info("10.0.1", "standalone", "master")).as_deref(), Ok("abc"));
    for (version, mode, role, expected) in [
        ("6.0.16", "standalone", "master", "6.2 or newer"),
        ("5.0", "standalone", "master", "6.2 or newer"),
        ("", "standalone", "master", "6.2 or newer"),
        ("7.2.4", "cluster", "master", "cluster mode"),
        ("7.2.4", "standalone", "slave", "replica"),
    ] {
        let error = check(&info(version, mode, role)).expect_err(version);
        assert!(error.contains(expected), "{error}");
    }
}
