"""Tracked tables: one event a row, whoever writes it and however."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from psycopg import errors

from fraiseql_subs import _core

from .databases import Connection, connect, database, events, role, url_of

LIMIT = 1_048_576


@pytest.fixture
def url(postgres_server):
    with database(postgres_server, installed=True) as url:
        yield url


@pytest.fixture
def db(url) -> Iterator[Connection]:
    with connect(url) as connection:
        yield connection


def track(db: Connection, table: str, **options: object) -> str:
    named = "".join(f", {name} => %({name})s" for name in options)
    row = db.execute(
        f"SELECT fraiseql_subs.track(%(table)s::text::regclass{named})", {"table": table, **options}
    ).fetchone()
    assert row
    channel: str = row[0]
    return channel


def test_each_row_is_an_event_with_its_images_and_its_tenant(db):
    db.execute("CREATE TABLE orders (id int PRIMARY KEY, org uuid, total numeric)")
    assert track(db, "orders", tenant_column="org") == "orders"
    org = "11111111-2222-3333-4444-555555555555"
    db.execute("INSERT INTO orders VALUES (1, %s, 1.50)", [org])
    db.execute("UPDATE orders SET total = 2")
    db.execute("UPDATE orders SET org = NULL")
    db.execute("DELETE FROM orders")
    first, second, last = ({"id": 1, "org": a, "total": b} for a, b in ((org, 1.5), (org, 2), (None, 2)))
    assert events(db, "channel", "event_type", "data", "previous", "tenant_id", "source", "all_tenants") == [
        ("orders", "insert", first, None, org, None, False),
        ("orders", "update", second, first, org, None, False),
        ("orders", "update", last, second, None, None, False),
        ("orders", "delete", last, last, None, None, False),
    ]


def test_an_update_of_the_key_is_one_update_with_its_own_old_row(db):
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    db.execute("INSERT INTO t SELECT -i, i FROM generate_series(1, 1000) AS i")
    track(db, "t")
    db.execute("UPDATE t SET id = 2000 - id")
    changes = events(db)
    assert len(changes) == 1000
    for kind, data, previous in changes:
        assert (kind, data["id"], data["v"]) == ("update", 2000 - previous["id"], previous["v"])


def test_every_statement_that_writes_rows_is_heard(db):
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    track(db, "t")
    with db.cursor().copy("COPY t FROM STDIN") as copy:
        copy.write("1\t1\n2\t2\n")
    assert events(db, "event_type", "data ->> 'id'") == [("insert", "1"), ("insert", "2")]
    db.execute("INSERT INTO t VALUES (2, 5), (3, 3) ON CONFLICT (id) DO UPDATE SET v = excluded.v")
    assert events(db) == [("update", {"id": 2, "v": 5}, {"id": 2, "v": 2}), ("insert", {"id": 3, "v": 3}, None)]
    db.execute("INSERT INTO t VALUES (3, 9) ON CONFLICT DO NOTHING")
    assert events(db) == []
    db.execute(
        "MERGE INTO t USING (VALUES (1), (2), (4)) AS s (id) ON t.id = s.id WHEN MATCHED AND t.id = 1 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET v = 0 WHEN NOT MATCHED THEN INSERT VALUES (s.id, 4)"
    )
    kinds = events(db, "event_type", "data ->> 'id'")
    assert sorted(kinds) == [("delete", "1"), ("insert", "4"), ("update", "2")]
    db.execute("WITH gone AS (DELETE FROM t RETURNING *) INSERT INTO t SELECT id + 10, v FROM gone")
    assert sorted(events(db, "event_type")) == ["delete"] * 3 + ["insert"] * 3
    db.execute("TRUNCATE t")  # is not tracked
    assert events(db) == []


def test_columns_are_those_that_are_named_and_there(db):
    db.execute('CREATE TABLE t (id int, "a, ""b""" int, secret text, org text)')
    track(db, "t", columns=["id", 'a, "b"'], tenant_column="org")
    db.execute("INSERT INTO t VALUES (1, 2, 'x', 'acme')")
    db.execute("UPDATE t SET secret = 'y'")  # an event a row, whether what is sent of it has changed or not
    same = {"id": 1, 'a, "b"': 2}
    assert events(db, "event_type", "data", "previous", "tenant_id") == [
        ("insert", same, None, "acme"),
        ("update", same, same, "acme"),
    ]
    db.execute('ALTER TABLE t DROP COLUMN "a, ""b""", ADD COLUMN new int DEFAULT 7')
    db.execute("UPDATE t SET id = 2")
    assert events(db) == [("update", {"id": 2}, {"id": 1})]
    db.execute("ALTER TABLE t DROP COLUMN id")
    db.execute("UPDATE t SET new = 3")
    assert events(db) == [("update", {}, {})]


def test_without_its_tenants_column_nothing_is_written(db):
    db.execute("CREATE TABLE t (id int, org text)")
    track(db, "t", tenant_column="org")
    db.execute("ALTER TABLE t RENAME org TO tenant")
    with pytest.raises(errors.UndefinedColumn, match=r'tracked table public\.t has no column "org" any more'):
        db.execute("INSERT INTO t VALUES (1, 'acme')")
    assert db.execute("SELECT count(*) FROM t").fetchone() == (0,)
    track(db, "t", tenant_column="tenant")
    db.execute("INSERT INTO t VALUES (1, 'acme')")
    assert events(db, "tenant_id") == ["acme"]


def test_a_table_that_changes_goes_on(db):
    db.execute("CREATE TABLE t (id int)")
    track(db, "t")
    db.execute("INSERT INTO t VALUES (1)")
    db.execute("ALTER TABLE t ADD COLUMN note text DEFAULT 'n', ALTER COLUMN id TYPE bigint")
    db.execute("UPDATE t SET id = 3000000000")
    db.execute("ALTER TABLE t RENAME TO other")
    db.execute("DELETE FROM other")
    big = {"id": 3_000_000_000, "note": "n"}
    assert events(db, "channel", "event_type", "data", "previous") == [
        ("t", "insert", {"id": 1}, None),
        ("t", "update", big, {"id": 1, "note": "n"}),
        ("t", "delete", big, big),
    ]
    db.execute("DROP TABLE other")


def test_a_row_of_exactly_the_limit_is_sent_and_one_byte_more_fails_the_writer(db):
    db.execute("CREATE TABLE t (id int PRIMARY KEY, note text)")
    track(db, "t")
    around = len(json.dumps({"id": 1, "note": ""}))
    db.execute("INSERT INTO t VALUES (1, repeat('x', %s))", [LIMIT - around])
    assert events(db, "octet_length(data::text)") == [LIMIT]
    for statement in "UPDATE t SET note = note || 'x'", f"INSERT INTO t VALUES (2, repeat('x', {LIMIT}))":
        with pytest.raises(
            errors.ProgramLimitExceeded, match=r"row of tracked table public.t has \d+ bytes .* 1048576 are"
        ):
            db.execute(statement)
    assert (events(db), db.execute("SELECT count(*) FROM t").fetchone()) == ([], (1,))


def test_key_only_sends_the_key_of_a_row_that_is_too_large(db):
    db.execute("CREATE TABLE t (note text, b int, org text, a int, PRIMARY KEY (b, a) INCLUDE (org))")
    track(db, "t", oversize="key-only", tenant_column="org", columns=["note"])
    db.execute("INSERT INTO t VALUES ('small', 2, 'acme', 1)")
    db.execute(f"UPDATE t SET note = repeat('x', {LIMIT}), a = 3")
    db.execute("UPDATE t SET note = 'again'")  # it is the old row alone that does not fit
    db.execute(f"UPDATE t SET note = repeat('x', {LIMIT})")
    db.execute("DELETE FROM t")
    old, new = {"a": 1, "b": 2}, {"a": 3, "b": 2}
    assert events(db, "event_type", "data", "previous", "tenant_id") == [
        ("insert", {"note": "small"}, None, "acme"),
        ("update", new, old, "acme"),
        ("update", new, new, "acme"),
        ("update", new, new, "acme"),
        ("delete", new, new, "acme"),
    ]


def test_key_only_without_a_key_fails_the_writer(db):
    db.execute("CREATE TABLE t (id int PRIMARY KEY, note text)")
    track(db, "t", oversize="key-only")
    db.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")
    db.execute("INSERT INTO t VALUES (1, 'fits')")
    with pytest.raises(errors.ProgramLimitExceeded, match=r"row of tracked table public\.t has"):
        db.execute(f"INSERT INTO t VALUES (1, repeat('x', {LIMIT}))")
    assert events(db) == [("insert", {"id": 1, "note": "fits"}, None)]


def test_partitions_speak_for_their_table_however_they_are_written_to(db):
    db.execute("CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)")
    db.execute("CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (10)")
    track(db, "t")
    db.execute("CREATE TABLE high PARTITION OF t FOR VALUES FROM (10) TO (20)")  # afterwards
    db.execute("INSERT INTO t VALUES (1, 1), (11, 1)")
    db.execute("INSERT INTO high VALUES (12, 1)")  # past its table
    assert events(db, "channel", "event_type", "data ->> 'id'") == [
        ("t", "insert", "1"), ("t", "insert", "11"), ("t", "insert", "12"),
    ]  # fmt: skip
    db.execute("UPDATE t SET v = 2 WHERE id = 11")
    db.execute("UPDATE t SET id = 13 WHERE id = 1")  # PostgreSQL moves it so
    assert events(db) == [
        ("update", {"id": 11, "v": 2}, {"id": 11, "v": 1}),
        ("delete", {"id": 1, "v": 1}, {"id": 1, "v": 1}),
        ("insert", {"id": 13, "v": 1}, None),
    ]
    with pytest.raises(errors.WrongObjectType, match=r"public.low is a partition of a table that is tracked"):
        track(db, "low")
    with pytest.raises(errors.WrongObjectType, match=r"public.low is tracked as a partition"):
        db.execute("SELECT fraiseql_subs.untrack('low')")
    db.execute("ALTER TABLE t DETACH PARTITION high")
    db.execute("INSERT INTO high VALUES (14, 1)")
    assert events(db) == []
    db.execute("SELECT fraiseql_subs.untrack('t')")
    db.execute("INSERT INTO low VALUES (5, 1)")
    assert events(db) == []
    track(db, "low", channel="alone")
    db.execute("INSERT INTO t VALUES (6, 1)")
    assert events(db, "channel") == ["alone"]


def test_a_table_that_inherits_is_another_table(db):
    db.execute("CREATE TABLE parent (id int); CREATE TABLE child () INHERITS (parent)")
    track(db, "parent")
    db.execute("INSERT INTO child VALUES (1); INSERT INTO parent VALUES (2); UPDATE parent SET id = id + 10")
    assert events(db, "event_type", "data ->> 'id'") == [("insert", "2"), ("update", "12")]


def test_generated_columns(db):
    db.execute("CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a * 2) STORED)")
    track(db, "t")
    db.execute("INSERT INTO t VALUES (1)")
    assert events(db, "data") == [{"a": 1, "b": 2}]
    if db.info.server_version < 180_000:
        return
    db.execute("CREATE TABLE v (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL)")
    for options in {}, {"columns": ["a", "b"]}, {"columns": ["a"], "tenant_column": "b"}:
        with pytest.raises(errors.WrongObjectType, match=r'column "b" of public\.v is virtual'):
            track(db, "v", **options)
    track(db, "v", columns=["a"])
    db.execute("INSERT INTO v VALUES (1)")
    assert events(db, "data") == [{"a": 1}]


def test_names_that_need_quotes(db):
    db.execute(
        'CREATE SCHEMA "my ""schema"; CREATE TABLE "my ""schema"."Tab\'le %" ("Id %s" int PRIMARY KEY, "\'" text)'
    )
    table = '"my ""schema"."Tab\'le %"'
    assert track(db, table, tenant_column="'", oversize="key-only") == "Tab'le %"
    db.execute(f"INSERT INTO {table} VALUES (1, 'acme'), (2, repeat('x', {LIMIT}))", prepare=False)
    assert events(db, "channel", "data", "length(tenant_id)") == [
        ("Tab'le %", {"Id %s": 1, "'": "acme"}, 4), ("Tab'le %", {"Id %s": 2}, LIMIT),
    ]  # fmt: skip
    assert track(db, table, channel="it's %s {0}") == "it's %s {0}"
    db.execute(f'DELETE FROM {table} WHERE "Id %s" = 1')
    assert events(db, "channel") == ["it's %s {0}"]


def test_values_are_written_alike_whatever_the_writers_session_says(db):
    db.execute(
        "CREATE TABLE t (n numeric, f float8, big float8, b bytea, at timestamptz, span interval, ts timestamp, "
        "list int[], j json, period tstzrange)"
    )
    track(db, "t")
    row = (
        "INSERT INTO t VALUES (12345678901234567890.123, 'NaN', 0.1::float8 + 0.2, '\\x00ff', '2024-01-01 00:00+02', "
        "'1 day 2 hours', '2024-01-01 00:00', '{1,NULL}', '{\"a\": [1]}', '[2024-01-01 00:00+02,)')"
    )
    db.execute(row)
    db.execute(
        "SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'; SET intervalstyle = 'iso_8601'; "
        "SET bytea_output = 'escape'; SET extra_float_digits = -10; SET search_path = ''"
    )
    db.execute(row.replace("INTO t", "INTO public.t"))
    one, other = events(db, "data::text")
    assert one == other
    assert json.loads(one, parse_float=str) == {
        "n": "12345678901234567890.123", "f": "NaN", "big": "0.30000000000000004", "b": "\\x00ff",
        "at": "2023-12-31T22:00:00+00:00", "span": "1 day 02:00:00", "ts": "2024-01-01T00:00:00",
        "list": [1, None], "j": {"a": [1]}, "period": '["2023-12-31 22:00:00+00",)',
    }  # fmt: skip


def test_a_writer_needs_no_rights_and_row_security_hides_nothing_from_the_event(db):
    db.execute("CREATE TABLE t (id int, owner text)")
    track(db, "t")
    writer = role(db, "GRANT INSERT, UPDATE, SELECT ON t TO {}")
    db.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    db.execute("CREATE POLICY p ON t USING (owner = current_user)")
    with connect(url_of(db, writer)) as theirs:
        theirs.execute("INSERT INTO t VALUES (1, current_user)")
        theirs.execute("UPDATE t SET id = 2")
        with pytest.raises(errors.InsufficientPrivilege):
            theirs.execute("SELECT fraiseql_subs.publish('t', 'insert', '{}')")
        with pytest.raises(errors.InsufficientPrivilege):
            theirs.execute("SELECT FROM fraiseql_subs.event")
    assert events(db, "event_type", "data ->> 'id'") == [("insert", "1"), ("update", "2")]


def test_names_of_others_do_not_stand_in_the_way(db):
    """Objects that an attacker may make: in a schema that comes first, and temporary ones."""
    attacker = role(db, "CREATE SCHEMA AUTHORIZATION {}", "GRANT CREATE ON SCHEMA public TO {}")
    db.execute("CREATE TABLE public.t (id int, note text)")
    track(db, "public.t")
    db.execute(f"GRANT ALL ON public.t TO {attacker}")
    with connect(url_of(db, attacker)) as theirs:
        theirs.execute(f"SET search_path = {attacker}, public, pg_catalog")
        for function in "lower(text)", "octet_length(text)", "to_jsonb(anyelement)", "pg_notify(text, text)":
            returns = "void" if function.startswith("pg_n") else "jsonb" if "any" in function else "int"
            returns = "text" if function.startswith("lower") else returns
            theirs.execute(
                f"CREATE FUNCTION {function} RETURNS {returns} LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE 'hijacked by %', current_user; END $$"
            )
        theirs.execute(
            "CREATE FUNCTION no(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked'; END $$"
        )
        theirs.execute(f"CREATE OPERATOR <> (FUNCTION = {attacker}.no, LEFTARG = text, RIGHTARG = text)")
        theirs.execute("CREATE TEMP TABLE event (a int)")
        with pytest.raises(errors.RaiseException, match="hijacked"):
            theirs.execute("SELECT lower('X'::text)")  # the trap works
        theirs.execute("INSERT INTO t VALUES (1, 'x')")
    assert events(db, "event_type") == ["insert"]


def test_changes_that_the_applications_own_triggers_make_come_after(db):
    db.execute("CREATE TABLE t (id int, v int)")
    db.execute(
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN UPDATE t SET v = v + 1 WHERE id = NEW.id AND v < 3; RETURN NULL; END $$"
    )
    db.execute('CREATE TRIGGER "A" AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION again()')
    track(db, "t")
    db.execute("INSERT INTO t VALUES (1, 1)")
    assert events(db, "event_type", "data ->> 'v'") == [("insert", "1"), ("update", "2"), ("update", "3")]


def test_a_session_that_replicates_tells_nothing(db):
    db.execute("CREATE TABLE t (id int)")
    track(db, "t")
    db.execute("SET session_replication_role = replica")
    db.execute("INSERT INTO t VALUES (1)")
    assert events(db) == []
    db.execute('ALTER TABLE t ENABLE ALWAYS TRIGGER "!fraiseql_subs:fraiseql_subs"')
    db.execute("INSERT INTO t VALUES (2)")
    assert events(db, "data") == [{"id": 2}]


def test_what_is_rolled_back_is_never_told_and_a_transaction_notifies_once(db, url):
    db.execute("CREATE TABLE t (id int)")
    track(db, "t")
    with connect(url) as listening:
        listening.execute('LISTEN "fraiseql_subs:fraiseql_subs"')
        with db.transaction(force_rollback=True):
            db.execute("INSERT INTO t VALUES (1)")
        with db.transaction():
            db.execute("INSERT INTO t SELECT i FROM generate_series(1, 100) AS i")
            with db.transaction(force_rollback=True):
                db.execute("DELETE FROM t")
            with db.transaction():
                db.execute("UPDATE t SET id = 0 WHERE id = 1")
        db.execute("NOTIFY \"fraiseql_subs:fraiseql_subs\", 'end'")
        heard = [notification.payload for notification in listening.notifies(stop_after=2, timeout=10)]
    assert len(heard) == 2
    assert heard[1] == "end"
    assert events(db, "event_type") == ["insert"] * 100 + ["update"]


def test_a_transaction_that_wrote_to_a_tracked_table_cannot_be_prepared(db):
    db.execute("CREATE TABLE t (id int)")
    track(db, "t")
    db.execute("BEGIN")
    db.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(errors.FeatureNotSupported, match="NOTIFY"):
        db.execute("PREPARE TRANSACTION 'x'")
    assert events(db) == []


def test_serializable_writers_do_not_hinder_each_other(db, url):
    db.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT i FROM generate_series(1, 2000) AS i")
    track(db, "t")
    begin = "BEGIN ISOLATION LEVEL SERIALIZABLE"
    with connect(url) as other:
        for connection, row in (db, 1), (other, 2000):
            connection.execute(begin)
            connection.execute("SET LOCAL enable_seqscan = off")
            connection.execute("DELETE FROM t WHERE id = %s", [row])
        db.execute("COMMIT")
        other.execute("COMMIT")
    assert events(db, "data") == [{"id": 1}, {"id": 2000}]


def test_tracking_again_changes_the_options_in_place_and_untracking_leaves_nothing(db):
    db.execute("CREATE TABLE t (id int PRIMARY KEY, org text)")
    objects = "SELECT classid, objid, refobjid FROM pg_depend WHERE refobjid = 't'::regclass ORDER BY 1, 2, 3"
    before = db.execute(objects).fetchall()
    track(db, "t")
    track(db, "t", channel="c", tenant_column="org", columns=["id"], oversize="key-only")
    db.execute("INSERT INTO t VALUES (1, 'acme')")
    track(db, "t")
    db.execute("INSERT INTO t VALUES (2, 'acme')")
    assert events(db, "channel", "data", "tenant_id") == [
        ("c", {"id": 1}, "acme"),
        ("t", {"id": 2, "org": "acme"}, None),
    ]
    assert db.execute("SELECT fraiseql_subs.untrack('t')").fetchone() == (True,)
    db.execute("INSERT INTO t VALUES (3, 'acme')")
    assert events(db) == []
    assert db.execute(objects).fetchall() == before
    assert db.execute("SELECT fraiseql_subs.untrack('t')").fetchone() == (False,)


@pytest.mark.parametrize(
    ("table", "options", "error", "text"),
    [
        ("v", {}, errors.WrongObjectType, "public.v is not a table"),
        ("fraiseql_subs.event", {}, errors.WrongObjectType, "fraiseql_subs.event belongs to the bus itself"),
        ("nothing", {}, errors.UndefinedTable, 'relation "nothing" does not exist'),
        ("t", {"columns": ["id", "x"]}, errors.UndefinedColumn, 'public.t has no column "x"'),
        ("t", {"columns": ["gone"]}, errors.UndefinedColumn, 'public.t has no column "gone"'),
        ("t", {"tenant_column": "ctid"}, errors.UndefinedColumn, 'public.t has no column "ctid"'),
        ("t", {"columns": []}, errors.InvalidParameterValue, "columns: expected one at least"),
        ("t", {"oversize": "drop"}, errors.InvalidParameterValue, "oversize: expected raise or key-only, got drop"),
        ("t", {"oversize": None}, errors.InvalidParameterValue, "oversize: expected raise or key-only"),
        ("t", {"oversize": "key-only"}, errors.UndefinedObject, "public.t has no primary key"),
        ("t", {"channel": ""}, errors.InvalidParameterValue, "channel: expected"),
        ("t", {"channel": "a\nb"}, errors.InvalidParameterValue, "channel: expected"),
        ("t", {"channel": "x" * 1025}, errors.InvalidParameterValue, "channel: expected"),
    ],
)
def test_what_cannot_be_tracked_is_refused(db, table, options, error, text):
    db.execute("CREATE TABLE t (id int, gone int); ALTER TABLE t DROP COLUMN gone; CREATE VIEW v AS SELECT * FROM t")
    with pytest.raises(error, match=text.replace(".", r"\.")):
        track(db, table, **options)
    db.execute("INSERT INTO t VALUES (1)")
    assert events(db) == []


def test_two_buses_may_track_one_table(db, url):
    _core.postgres_install(url, "other")
    db.execute("CREATE TABLE t (id int)")
    track(db, "t")
    db.execute("SELECT other.track('t')")
    db.execute("INSERT INTO t VALUES (1)")
    assert db.execute("SELECT data FROM other.event").fetchall() == [({"id": 1},)]
    db.execute("SELECT other.untrack('t')")
    db.execute("INSERT INTO t VALUES (2)")
    assert events(db, "data") == [{"id": 1}, {"id": 2}]
