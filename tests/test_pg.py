"""`fraiseql-subs pg`: installing, tracking and pruning from the command line, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from fraiseql_subs import BusUnavailable, EventBusConfig, Schema, SecurityContext, SubscriptionManager, _core

from .databases import VERSION, Connection, connect, database, events, pg, role, url_of
from .support import orders, soon

DOCUMENT = Path(__file__).parents[1] / "docs/postgresql.md"

OBJECTS = """
    SELECT oid::regprocedure::text, pg_get_functiondef(oid), proacl::text FROM pg_proc
        WHERE pronamespace = 'fraiseql_subs'::regnamespace
    UNION ALL SELECT attrelid::regclass || '.' || attname, format_type(atttypid, atttypmod), relacl::text
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'fraiseql_subs'::regnamespace
    ORDER BY 1, 2
"""
USAGE = "GRANT USAGE ON SCHEMA fraiseql_subs TO {}"
PUBLISH = "GRANT EXECUTE ON FUNCTION fraiseql_subs.publish TO {}"
ROWS = "SELECT oid, xmin FROM pg_proc WHERE pronamespace = 'fraiseql_subs'::regnamespace ORDER BY 1"


@pytest.fixture
def empty(postgres_server):
    with database(postgres_server, installed=False) as url:
        yield url


@pytest.fixture
def installed(postgres_server):
    with database(postgres_server, installed=True) as url:
        yield url


@pytest.fixture(scope="module")
def places(postgres_server):
    """For what changes nothing: a database with our schema, one without, and a wrong password."""
    with database(postgres_server, installed=True) as installed, database(postgres_server, installed=False) as empty:
        with connect(installed) as db:
            db.execute("CREATE TABLE t (id int); CREATE VIEW v AS SELECT 1 AS id")
        wrong = empty.replace(postgres_server.password, "hunter2")
        yield {"installed": installed, "empty": empty, "wrong": wrong}


def version(db: Connection) -> int:
    row = db.execute("SELECT version FROM fraiseql_subs.meta").fetchone()
    assert row
    number: int = row[0]
    return number


def test_install_twice_is_install_once(empty):
    assert pg("install", dsn=empty) == (0, f"fraiseql_subs: version {VERSION}, new\n", "")
    with connect(empty) as db:
        before = db.execute(OBJECTS).fetchall(), db.execute("SELECT * FROM fraiseql_subs.meta").fetchall()
        made = db.execute(ROWS).fetchall()
        assert pg("install", "--dsn", empty) == (0, f"fraiseql_subs: version {VERSION}\n", "")
        assert (db.execute(OBJECTS).fetchall(), db.execute("SELECT * FROM fraiseql_subs.meta").fetchall()) == before
        # Nothing was done: no row of the catalogue is a new one.
        assert db.execute(ROWS).fetchall() == made != []


def test_what_sql_prints_is_what_install_runs(postgres_server, installed, empty):
    status, script, _ = pg("sql")
    assert (status, script) == (0, _core.postgres_sql("fraiseql_subs") + "\n")
    psql = [postgres_server.program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", empty]
    for _ in range(2):
        done = subprocess.run(psql, input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with connect(installed) as one, connect(empty) as two:
        assert one.execute(OBJECTS).fetchall() == two.execute(OBJECTS).fetchall() != []
        assert version(two) == VERSION


def test_several_install_at_once(empty):
    results: list[tuple[int | None, int]] = []

    def install() -> None:
        results.append(_core.postgres_install(empty, "fraiseql_subs"))

    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    threads = [threading.Thread(target=install) for _ in range(8)]
    with connect(empty) as db, psycopg.connect(empty) as first:
        # All of them find nothing there, and none goes on before all are there.
        first.execute("CREATE SCHEMA fraiseql_subs")
        for thread in threads:
            thread.start()
        while db.execute(waiting).fetchone() != (8,):
            pass
        first.rollback()
    for thread in threads:
        thread.join()
    assert [now for _, now in results] == [VERSION] * 8
    with connect(empty) as db:
        assert db.execute("SELECT count(*) FROM fraiseql_subs.meta").fetchone() == (1,)


async def test_a_schema_of_version_1_is_refused_until_it_is_brought_up(installed):
    """It has no `channel_name`."""
    named = "SELECT fraiseql_subs.channel_name('orders:{id}', '{\"id\": 1}')"
    manager = SubscriptionManager(Schema(subscriptions=[orders]), EventBusConfig.postgresql(installed))
    with connect(installed) as db:
        made = db.execute(OBJECTS).fetchall()
        db.execute("DROP FUNCTION fraiseql_subs.channel_name; UPDATE fraiseql_subs.meta SET version = 1")
        with pytest.raises(
            BusUnavailable, match=f"has version 1, and {VERSION} is needed: run `fraiseql-subs pg install"
        ):
            await manager.__aenter__()
        assert pg("install", dsn=installed) == (0, f"fraiseql_subs: version {VERSION}, was 1\n", "")
        assert (db.execute(OBJECTS).fetchall(), version(db)) == (made, VERSION)
        assert db.execute(named).fetchone() == ("orders:1",)
    async with manager:
        assert manager.health()["ok"]


def test_an_older_version_is_brought_up_step_by_step_and_a_newer_one_is_left_alone(empty):
    """All versions are made up; what they hold is kept, and each step runs once."""
    made = "CREATE TABLE fraiseql_subs.steps (step int); ALTER TABLE fraiseql_subs.event ADD two text DEFAULT 'two'"
    steps = [f"{made}; INSERT INTO fraiseql_subs.steps VALUES (2)", "INSERT INTO fraiseql_subs.steps VALUES (3)"]
    with connect(empty) as db:
        db.execute(_core.postgres_sql("fraiseql_subs", []).encode())
        db.execute("SELECT fraiseql_subs.publish('c', 'e', '{}')")
        publisher = role(db, USAGE, PUBLISH)
        epoch = db.execute("SELECT epoch FROM fraiseql_subs.meta").fetchall()
        for given, done in (steps[:1], [2]), (steps, [2, 3]), (steps, [2, 3]):
            db.execute(_core.postgres_sql("fraiseql_subs", given).encode())
            assert version(db) == len(given) + 1
            assert [row[0] for row in db.execute("SELECT step FROM fraiseql_subs.steps ORDER BY 1")] == done
        assert db.execute("SELECT epoch FROM fraiseql_subs.meta").fetchall() == epoch
        with connect(url_of(db, publisher)) as theirs:
            theirs.execute("SELECT fraiseql_subs.publish('c', 'e', '{}')")
        assert events(db, "two") == ["two", "two"]
        db.execute("UPDATE fraiseql_subs.meta SET version = 9")
        before = db.execute(OBJECTS).fetchall()
        status, out, err = pg("install", dsn=empty)
        assert (status, out) == (1, "")
        assert f'the schema "fraiseql_subs" has version 9, and this is version {VERSION} of its SQL' in err
        assert (db.execute(OBJECTS).fetchall(), version(db)) == (before, 9)


def test_a_step_that_fails_leaves_all_as_it_was(installed):
    with connect(installed) as db:
        before = db.execute(OBJECTS).fetchall()
        steps = [""] * (VERSION - 1) + ["DROP FUNCTION fraiseql_subs.publish; SELECT 1 / 0"]
        broken = _core.postgres_sql("fraiseql_subs", steps)
        with pytest.raises(errors.DivisionByZero):
            db.execute(broken.encode())
        db.execute("ROLLBACK")
        assert (db.execute(OBJECTS).fetchall(), version(db)) == (before, VERSION)


def test_no_superuser_is_needed_and_nothing_is_for_everybody(empty):
    with connect(empty) as db:
        owner = role(db, f"GRANT CREATE ON DATABASE {db.info.dbname} TO {{}}")
        anybody = role(db)
        assert pg("install", dsn=url_of(db, owner)) == (0, f"fraiseql_subs: version {VERSION}, new\n", "")
        with connect(url_of(db, anybody)) as theirs, pytest.raises(errors.InsufficientPrivilege, match="for schema"):
            theirs.execute("SELECT fraiseql_subs.publish('c', 'e', '{}')")
        # Nor where a careless grant opens the schema.
        db.execute("GRANT USAGE ON SCHEMA fraiseql_subs TO PUBLIC")
        functions = "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'fraiseql_subs'::regnamespace"
        relations = (
            "SELECT oid::regclass::text FROM pg_class "
            "WHERE relnamespace = 'fraiseql_subs'::regnamespace AND relkind IN ('r', 'S')"
        )
        count = 0
        for kind, privilege, query in ("function", "EXECUTE", functions), ("table", "SELECT", relations):
            for (name,) in db.execute(query).fetchall():
                allowed = db.execute(f"SELECT has_{kind}_privilege(%s, %s, %s)", [anybody, name, privilege]).fetchone()
                assert (name, allowed) == (name, (False,))
                count += 1
        assert count > 12


def test_a_schema_of_somebody_elses_is_not_installed_into(empty):
    with connect(empty) as db:
        stranger = role(db, "CREATE SCHEMA fraiseql_subs AUTHORIZATION {}")
        status, out, err = pg("install", dsn=empty)
        assert (status, out) == (1, "")
        assert f'the schema "fraiseql_subs" belongs to the role {stranger}: only that role installs into it' in err
        assert db.execute("SELECT to_regclass('fraiseql_subs.event')").fetchone() == (None,)
        assert pg("install", dsn=url_of(db, stranger))[:2] == (0, f"fraiseql_subs: version {VERSION}, new\n")


def test_installing_looks_at_nothing_that_others_have_made(empty):
    with connect(empty) as db:
        for function in "octet_length(json) RETURNS int", "gen_random_uuid() RETURNS uuid", "lower(text) RETURNS text":
            db.execute(f"CREATE FUNCTION public.{function} LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked'; END $$")
        db.execute(f"ALTER DATABASE {db.info.dbname} SET search_path = public, pg_catalog")
        assert pg("install", dsn=empty)[0] == 0
    with connect(empty) as db:
        with pytest.raises(errors.RaiseException, match="hijacked"):
            db.execute("SELECT gen_random_uuid()")  # the trap works
        db.execute("SELECT fraiseql_subs.publish('c', 'e', '{}')")
        db.execute("CREATE TABLE public.t (id int)")
        db.execute("SELECT fraiseql_subs.track('public.t')")
        db.execute("INSERT INTO public.t VALUES (1)")
        assert events(db, "event_type") == ["e", "insert"]


def test_the_roles_that_the_documentation_names(empty):
    """Each with its own grants, and no more."""
    with connect(empty) as db:
        owner = role(db, f"GRANT CREATE ON DATABASE {db.info.dbname} TO {{}}")
        assert pg("install", dsn=url_of(db, owner))[0] == 0
        publisher = role(db, USAGE, PUBLISH)
        tracker = role(
            db, USAGE, "GRANT SELECT ON fraiseql_subs.meta TO {}",
            "GRANT EXECUTE ON FUNCTION fraiseql_subs.track, fraiseql_subs.untrack, fraiseql_subs.row_changed, "
            "fraiseql_subs.key_columns TO {}", "GRANT CREATE ON SCHEMA public TO {}",
        )  # fmt: skip
        with connect(url_of(db, publisher)) as theirs:
            theirs.execute("SELECT fraiseql_subs.publish('c', 'e', '{}')")
            for refused in "SELECT FROM fraiseql_subs.event", "SELECT fraiseql_subs.track('pg_class')":
                with pytest.raises(errors.InsufficientPrivilege):
                    theirs.execute(refused)
        with connect(url_of(db, tracker)) as theirs:
            theirs.execute("CREATE TABLE public.t (id int)")
            assert pg("track", "t", dsn=url_of(db, tracker)) == (0, "t publishes on channel t\n", "")
            theirs.execute("INSERT INTO t VALUES (1)")
            assert pg("untrack", "t", dsn=url_of(db, tracker)) == (0, "t publishes nothing any more\n", "")
            with pytest.raises(errors.InsufficientPrivilege):
                theirs.execute("SELECT fraiseql_subs.publish('c', 'e', '{}')")
        assert events(db, "event_type") == ["e", "insert"]
        db.execute("CREATE TABLE public.not_theirs (id int)")
        status, _, err = pg("track", "not_theirs", dsn=url_of(db, tracker))
        assert (status, err) == (1, "fraiseql-subs: permission denied for table not_theirs (42501)\n")


async def test_the_documentations_sql_runs_and_a_worker_with_its_grants_hears_of_it_all(empty):
    install, grants, publish, tracking = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    with connect(empty) as db:
        db.execute(install)
        db.execute("ALTER ROLE events PASSWORD 'secret'")
        assert pg("install", dsn=url_of(db, "events"))[0] == 0
        db.execute(grants)
        for name in "app_publisher", "app_worker", "app_tracker":
            db.execute(f"ALTER ROLE {name} LOGIN PASSWORD 'secret'")
        db.execute("GRANT CREATE ON SCHEMA public TO app_tracker")
        bus = EventBusConfig.postgresql(url_of(db, "app_worker"))
        query = "subscription { orders { id status } }"
        viewer = SecurityContext(tenant_id="11111111-2222-3333-4444-555555555555")
        async with SubscriptionManager(Schema(subscriptions=[orders]), bus) as manager:
            async with manager.subscribe(query) as everybodys, manager.subscribe(query, context=viewer) as tenants:
                with connect(url_of(db, "app_publisher")) as theirs:
                    theirs.execute(publish)
                    theirs.execute("SELECT fraiseql_subs.publish('orders', 'e', '{\"id\": 7, \"status\": \"sent\"}')")
                with connect(url_of(db, "app_tracker")) as theirs:
                    theirs.execute(tracking)
                await manager.publish_event("e", "orders", {"id": 8, "status": "sent"})
                first, second = [json.loads(await soon(anext(everybodys))) for _ in range(2)]
                [row] = [json.loads(await soon(anext(tenants)))]
    given = [message["payload"]["data"]["orders"] for message in (first, second, row)]
    assert given == [
        {"id": "7", "status": "sent"}, {"id": "8", "status": "sent"}, {"id": "1", "status": "open"},
    ]  # fmt: skip


def test_track_takes_its_options(installed):
    with connect(installed) as db:
        db.execute('CREATE TABLE "Orders" (id int PRIMARY KEY, "orgId" text, secret text, note text)')
        options = ["--channel", "o", "--tenant-column", "orgId", "--columns", "id,note", "--oversize", "key-only"]
        assert pg("track", '"Orders"', *options, dsn=installed) == (0, '"Orders" publishes on channel o\n', "")
        db.execute("INSERT INTO \"Orders\" VALUES (1, 'acme', 's', 'n'), (2, 'acme', 's', repeat('x', 2000000))")
        assert events(db, "channel", "tenant_id", "data") == [
            ("o", "acme", {"id": 1, "note": "n"}), ("o", "acme", {"id": 2}),
        ]  # fmt: skip
        assert pg("track", '"Orders"', dsn=installed) == (0, '"Orders" publishes on channel Orders\n', "")
        with pytest.raises(errors.ProgramLimitExceeded):
            db.execute("UPDATE \"Orders\" SET note = note || '!'")
        assert pg("untrack", '"Orders"', dsn=installed) == (0, '"Orders" publishes nothing any more\n', "")
        assert pg("untrack", '"Orders"', dsn=installed) == (0, '"Orders" was not tracked\n', "")
        db.execute("UPDATE \"Orders\" SET note = note || '!'")
        assert events(db) == []


def test_another_schema(empty):
    assert pg("install", "--schema", "My-bus", dsn=empty) == (0, f"My-bus: version {VERSION}, new\n", "")
    with connect(empty) as db:
        db.execute("CREATE TABLE t (id int)")
        assert pg("track", "t", "--schema", "My-bus", dsn=empty)[0] == 0
        db.execute("INSERT INTO t VALUES (1)")
        assert db.execute('SELECT data FROM "My-bus".event').fetchall() == [({"id": 1},)]
        assert pg("untrack", "t", "--schema", "My-bus", dsn=empty) == (0, "t publishes nothing any more\n", "")


def test_prune_deletes_what_is_too_many_or_too_old(installed):
    with connect(installed) as db:
        for channel, number in ("busy", 5000), ("quiet", 10):
            publish = "SELECT count(fraiseql_subs.publish(%s, 'e', jsonb_build_object('n', n)))"
            db.execute(publish + " FROM generate_series(1, %s) AS n", [channel, number])
        db.execute("SELECT fraiseql_subs.advance()")
        assert pg("prune", "--history", "100", dsn=installed) == (0, "4900 events deleted\n", "")
        kept = "SELECT channel, count(*), min((data ->> 'n')::int) FROM fraiseql_subs.event GROUP BY 1 ORDER BY 1"
        assert db.execute(kept).fetchall() == [("busy", 100, 4901), ("quiet", 10, 1)]
        assert pg("prune", "--history", "100", dsn=installed) == (0, "0 events deleted\n", "")
        assert pg("prune", "--history-age", "0", dsn=installed) == (0, "110 events deleted\n", "")
        assert db.execute(kept).fetchall() == []


def test_tracking_does_not_wait_for_long(installed):
    """Whoever waits for a table's lock holds up its writers."""
    with connect(installed) as db, psycopg.connect(installed) as busy:
        db.execute("CREATE TABLE t (id int)")
        busy.execute("INSERT INTO t VALUES (1)")
        status, out, err = pg("track", "t", dsn=installed)
        assert (status, out, err) == (1, "", "fraiseql-subs: canceling statement due to lock timeout (55P03)\n")


def test_quotes_are_explained_where_sql_reads_another_name(installed):
    with connect(installed) as db:
        db.execute('CREATE TABLE "Mixed" (id int); CREATE SCHEMA "Sales"; CREATE TABLE "Sales"."Mixed" (id int)')
        for table, read, quoted in [
            ("Mixed", 'relation "mixed"', '"Mixed"'),
            ("Sales.Mixed", 'schema "sales"', '"Sales"."Mixed"'),
        ]:
            for command in "track", "untrack":
                status, out, err = pg(command, table, dsn=installed)
                assert (status, out) == (1, "")
                assert f"{read} does not exist" in err
                assert err.endswith(f"in lower case: write '{quoted}', with both kinds of quotes\n")
            assert pg("track", quoted, dsn=installed)[:2] == (0, f"{quoted} publishes on channel Mixed\n")
            assert pg("untrack", quoted, dsn=installed)[:2] == (0, f"{quoted} publishes nothing any more\n")
        # Where quotes would not help, nothing is said of them.
        for table in "nothing", '"Nothing"':
            assert "quotes" not in pg("track", table, dsn=installed)[2]


WRONG = [
    ({"dsn": "{installed}"}, ["track", "nothing"], 'relation "nothing" does not exist'),
    ({"dsn": "{installed}"}, ["track", "a b"], "invalid name syntax"),
    ({"dsn": "{installed}"}, ["track", "v"], "public.v is not a table"),
    ({"dsn": "{installed}"}, ["track", "t", "--columns", "id,x"], 'public.t has no column "x"'),
    ({"dsn": "{installed}"}, ["track", "t", "--columns", ""], 'public.t has no column ""'),
    ({"dsn": "{installed}"}, ["track", "t", "--tenant-column", "x"], 'public.t has no column "x"'),
    ({"dsn": "{installed}"}, ["track", "t", "--oversize", "key-only"], "public.t has no primary key"),
    ({"dsn": "{installed}"}, ["track", "t", "--channel", "a\nb"], "channel: expected"),
    ({"dsn": "{installed}"}, ["untrack", "nothing"], 'relation "nothing" does not exist'),
    ({"dsn": "{installed}"}, ["prune", "--history", "-1"], "--history: expected a number from 0"),
    ({"dsn": "{installed}"}, ["prune", "--history", "x"], "--history: expected a number from 0"),
    ({"dsn": "{installed}"}, ["prune", "--history-age", "nan"], "--history-age: expected a number from 0"),
    ({"dsn": "{empty}"}, ["track", "t"], "run `fraiseql-subs pg install`"),
    ({"dsn": "{empty}"}, ["untrack", "t"], "run `fraiseql-subs pg install`"),
    ({"dsn": "{empty}"}, ["prune"], "run `fraiseql-subs pg install`"),
    ({}, ["install"], "which database? give --dsn, or set DATABASE_URL"),
    ({"dsn": "postgresql://u:hunter2@127.0.0.1:1/d"}, ["install"], "127.0.0.1:1"),
    ({"dsn": "postgresql://u:hunter2@127.0.0.1:1/d?colour=red"}, ["install"], "unknown option"),
    ({"dsn": "postgresql+psycopg://u:hunter2@127.0.0.1/d"}, ["install"], "dsn: expected a URL"),
    ({"dsn": "postgresql+asyncpg://u:hunter2@h/d"}, ["install"], "take `+asyncpg` away"),
    ({"dsn": "postgresql://u:p@hunter2@h/d"}, ["install"], "`@`, `:`, `/`, `?`, `#` and `%` are written `%40`"),
    ({"dsn": "hunter2"}, ["prune"], "dsn: expected a URL"),
    # What stands in the wrong place is repeated, and its password is not.
    ({}, ["install", "postgresql://u:hunter2@h/d"], "unrecognized arguments: postgresql://…@h/d"),
    ({}, ["install", "postgresql://u:a hunter2@h/d"], "unrecognized arguments: postgresql://…@h/d"),
    ({}, ["install", "host=h password = 'a hunter2' user=u"], "unrecognized arguments: host=h password = … user=u"),
    ({}, ["postgresql://u:hunter2@h/d"], "invalid choice: 'postgresql://…@h/d'"),
    ({}, ["prune", "--history", "postgresql://u:hunter2@h/d"], "got postgresql://…@h/d"),
    ({}, ["track", "t", "--oversize=postgresql://u:hunter2@h/d"], "invalid choice: 'postgresql://…@h/d'"),
    ({"dsn": "{installed}"}, ["track", "postgresql://u:hunter2@h/d"], "does not exist"),
    ({}, ["sql", "--schema", "postgresql://u:hunter2@h/d"], "schema: expected"),
    ({"dsn": "{installed}!"}, ["install"], "does not exist"),
    ({"dsn": "{wrong}"}, ["install"], "password authentication failed"),
    ({"dsn": "{installed}"}, ["install", "--schema", 'a"b'], "schema: expected"),
    ({}, ["sql", "--schema", ""], "schema: expected"),
    ({}, ["sql", "--schema", "pg_x"], "schema: expected"),
]


@pytest.mark.parametrize(("where", "arguments", "expected"), WRONG)
def test_wrong_input_is_one_line_without_the_password(postgres_server, places, where, arguments, expected):
    status, out, err = pg(*arguments, **{name: value.format(**places) for name, value in where.items()})
    assert (status in (1, 2), out) == (True, "")
    assert expected in err
    lines = err.splitlines()
    assert lines[-1].startswith("fraiseql-subs")
    assert len(lines) == 1 or lines[0].startswith("usage:")
    assert "hunter2" not in err
    assert postgres_server.password not in err
    assert "Traceback" not in err
