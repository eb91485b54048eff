use super::*;

fn config(url: &str) -> RedisConfig {
    let (url, consumer_group) = (url.to_owned(), "a:b%".to_owned());
    RedisConfig { url, consumer_group, history: 1, history_age: 1.0, connect_timeout: 1.0, publish_timeout: 1.0 }
}

#[test]
fn places_are_named_without_secrets() {
    let cases = [
        ("redis://:secret@example.org", "example.org:6379"),
        ("rediss://user:secret@example.org:7/3", "example.org:7"),
        ("redis://[::1]:7", "[::1]:7"),
        ("unix:///run/redis.sock?db=1&user=a&pass=secret", "/run/redis.sock"),
    ];
    for (url, place) in cases {
        assert_eq!(config(url).check().map(|settings| settings.place), Ok(place.to_owned()));
    }
    assert_eq!(config("redis://x").check().map(|settings| settings.prefix), Ok("a%3Ab%25".to_owned()));
}

#[test]
fn wrong_urls_are_refused_without_secrets() {
    for url in [
        "",
        "http://:secret@host",
        "secret",
        "redis://:secret@host/x",
        "redis://:secret@host/-1",
        "redis://:secret@host:port",
        "redis://:secret@host?timeout=3",
        "redis://:secret@host?protocol=resp3",
        "rediss://:secret@host/#insecure",
        "redis://secret@host",
        "unix://run/redis.sock?pass=secret",
        "unix:///run/redis.sock?pass=secret&db=x",
        "unix:///run/redis.sock?password=secret",
    ] {
        match config(url).check() {
            Err(BusError::Refused(reason)) => assert!(!reason.contains("secret"), "{reason}"),
            _ => panic!("{url} was taken"),
        }
    }
}

#[test]
fn what_tls_is_asked_for_is_read() {
    for (query, verify, authorities) in [
        ("", Verify::Full, None),
        ("?ssl_cert_reqs=required", Verify::Full, None),
        ("?ssl_cert_reqs=optional&ssl_ca_certs=/a%20b/c@d.pem", Verify::Full, Some("/a b/c@d.pem")),
        ("?ssl_cert_reqs=none", Verify::Nothing, None),
    ] {
        let settings = config(&format!("rediss://:secret@h{query}")).check().expect(query);
        assert_eq!((settings.verify, settings.authorities), (verify, authorities.map(PathBuf::from)), "{query}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (url, expected) in [
        ("redis://:secret@host?timeout=3", "unknown option `timeout`"),
        ("redis://:secret@host?ssl_cert_reqs=none", "unknown option `ssl_cert_reqs`"),
        ("rediss://:secret@host?ssl_cert_reqs=none&ssl_check_hostname=0", "unknown option `ssl_check_hostname`"),
        ("rediss://:secret@host?ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs: expected none, optional or required"),
        ("unix:///a@b?password=secret", "unknown option `password`"),
        // The password goes on behind it.
        ("redis://:sec/secret@host", "`%2F`"),
        ("redis://user:1/secret@host", "`%2F`"),
        ("redis://user:1?secret@host", "`%3F`"),
        ("redis://user:1?secret=1@host", "`%3F`"),
        ("redis://user:1#secret@host", "`%23`"),
    ] {
        match config(url).check() {
            Err(BusError::Refused(reason)) => {
                assert!(reason.contains(expected) && !reason.contains("secret"), "{url}: {reason}");
            }
            _ => panic!("{url} was taken"),
        }
    }
    let settings = config("redis://:a@secret@host").check().expect("an address");
    assert_eq!(
        (settings.place, settings.server.redis_settings().password()),
        ("host:6379".to_owned(), Some("a@secret"))
    );
}

#[test]
fn numbers_are_checked() {
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e12, 1e-9] {
        for config in [
            RedisConfig { history_age: wrong, ..config("redis://x") },
            RedisConfig { connect_timeout: wrong, ..config("redis://x") },
            RedisConfig { publish_timeout: wrong, ..config("redis://x") },
        ] {
            assert!(matches!(config.check(), Err(BusError::Refused(_))), "{wrong}");
        }
    }
}
