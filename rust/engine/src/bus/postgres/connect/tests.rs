use super::*;

fn read(text: &str) -> (String, SslMode, Option<Verify>, Roots) {
    let Dsn { config, verify, roots, address } = Dsn::parse(text).unwrap();
    (address, config.get_ssl_mode(), verify, roots)
}

#[test]
fn both_forms_say_the_same() {
    let file = || Roots::File("/a b/ca.crt".into());
    for (options, mode, verify, roots) in [
        (&[][..], SslMode::Prefer, Some(Verify::Nothing), Roots::Usual),
        (&[("sslmode", "disable")], SslMode::Disable, Some(Verify::Nothing), Roots::Usual),
        (&[("sslmode", "require")], SslMode::Require, None, Roots::Usual),
        (&[("sslmode", "require"), ("sslrootcert", "/a b/ca.crt")], SslMode::Require, Some(Verify::Authority), file()),
        (
            &[("sslmode", "verify-ca"), ("sslrootcert", "/a b/ca.crt")],
            SslMode::Require,
            Some(Verify::Authority),
            file(),
        ),
        (&[("sslrootcert", "/a b/ca.crt"), ("sslmode", "verify-full")], SslMode::Require, Some(Verify::Full), file()),
        (&[("sslrootcert", "system")], SslMode::Require, Some(Verify::Full), Roots::System),
    ] {
        let url: String = options.iter().map(|(key, value)| format!("&{key}={}", value.replace(' ', "%20"))).collect();
        let words: String = options.iter().map(|(key, value)| format!(" {key} = '{value}'")).collect();
        let expected = ("db.example:5444".to_owned(), mode, verify, roots);
        assert_eq!(read(&format!("postgresql://u:p@db.example:5444/d?application_name=x{url}")), expected);
        assert_eq!(
            read(&format!("host=db.example{words} port=5444 user=u password='it''s' ").replace("''", "\\'")),
            expected
        );
    }
}

#[test]
fn of_several_hosts_the_primary_is_taken() {
    for (text, attributes) in [
        ("postgresql://u@a,b/d", TargetSessionAttrs::ReadWrite),
        ("hostaddr=127.0.0.1,127.0.0.2 user=u", TargetSessionAttrs::ReadWrite),
        ("postgresql://u@a/d", TargetSessionAttrs::Any),
    ] {
        assert_eq!(Dsn::parse(text).unwrap().config.get_target_session_attrs(), attributes, "{text}");
    }
}

#[test]
fn the_rest_is_kept_as_it_was() {
    let Dsn { config, .. } =
        Dsn::parse(r"host=/run/pg user='a \'b' password=s\ e\\cret sslmode=disable dbname=d").unwrap();
    assert_eq!((config.get_user(), config.get_dbname()), (Some("a 'b"), Some("d")));
    assert_eq!(config.get_password(), Some(&br"s e\cret"[..]));
    assert_eq!(read("postgresql://u@%2Frun%2Fpg/d?sslmode=prefer").0, "/run/pg:5432");
    assert_eq!(read("postgresql://a:1,[::1]:2/d").0, "a:1, [::1]:2");
}

#[test]
fn what_is_wrong_is_named_without_the_password() {
    for (text, expected) in [
        ("postgresql://u:hunter2@h/d?sslmode=allow", "sslmode: expected disable, prefer"),
        ("postgresql://u:hunter2@h/d?sslmode=verify-ca&sslrootcert=system", "needs sslmode=verify-full"),
        ("postgresql://u:hunter2@h/d?sslrootcert=%zz", "percent sign"),
        ("postgresql://u:hunter2@h/d?colour=red", "unknown option `colour`"),
        ("postgresql://u:hunter2@h:port/d", "port"),
        ("host=h password=hunter2 colour=red", "unknown option `colour`"),
        ("host=h password='hunter2", "quote is not closed"),
        ("user=u password=hunter2", "names no host"),
        ("postgresql+asyncpg://u:hunter2@h/d", "take `+asyncpg` away"),
        ("postgres+psycopg2://u:hunter2@h/d", "take `+psycopg2` away"),
        ("postgresql://u:p@hunter2@h/d", "`@`, `:`, `/`, `?`, `#` and `%` are written `%40`"),
        ("postgresql://u:p@hunter2/x@h/d", "are written `%40`"),
        ("postgresql://u:1?hunter2@h/d", "`%3F`"),
        ("postgresql://u:1?hunter2@h=d", "`%3F`"),
        ("mysql://u:hunter2@h/d", "expected a URL"),
        ("hunter2", "expected a URL"),
        ("", "names no host"),
    ] {
        let error = Dsn::parse(text).map(|_| ()).unwrap_err();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{text}: {error}");
    }
}
