"""What is PostgreSQL's own: transactions that publish, positions, and what a server's life does to them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest

from fraiseql_subs import BusUnavailable, EventBusConfig, HistoryLost, Limits, SubscriptionManager, _core
from fraiseql_subs.servers import PostgreSQL

from .buses import SCHEMA, heard, tell, token, watch
from .databases import Connection, connect, database, events
from .proxy import Proxy
from .sockets import until
from .support import PATIENCE, take

#: The sessions of workers that listen, give positions and read.
LISTENERS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'fraiseql_subs'
        AND query ~ 'advance|found|trimmed' ORDER BY pid
"""
PUBLISH = "SELECT fraiseql_subs.publish(%s, 'told', %s::jsonb)"


@pytest.fixture
def url(postgres_server: PostgreSQL) -> Iterator[str]:
    """A database with the bus in it."""
    with database(postgres_server, installed=True) as url:
        yield url


@pytest.fixture
def session(url: str) -> Iterator[Callable[..., Connection]]:
    """`session()`: one more session, which commits each statement."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(connect(url, **options))


@contextlib.asynccontextmanager
async def managed(url: str, **options: Any) -> AsyncIterator[SubscriptionManager]:
    """A manager that is entered."""
    bus = EventBusConfig.postgresql(url, **options)
    async with SubscriptionManager(SCHEMA, bus, limits=Limits(queue_messages=100_000, queue_bytes=2**30)) as manager:
        yield manager


def say(connection: Connection, n: Any, channel: str = "c") -> str:
    """An event by SQL; its id."""
    row = connection.execute(PUBLISH, (channel, json.dumps({"n": n}))).fetchone()
    assert row
    return str(row[0])


def advance(connection: Connection) -> Any:
    return connection.execute("SELECT positioned, more, last FROM fraiseql_subs.advance()").fetchone()


def positioned(connection: Connection) -> list[Any]:
    """The events that have a position, in their order."""
    order = "SELECT data->'n' FROM fraiseql_subs.position JOIN fraiseql_subs.event USING (seq) ORDER BY position"
    return [n for (n,) in connection.execute(order).fetchall()]


# ---- transactions ----


async def test_an_event_is_heard_when_its_transaction_is_committed_and_never_if_it_is_not(url, session):
    one, two = session(), session()
    async with managed(url) as manager, watch(manager, "c") as stream, watch(manager, "c", resume=True) as later:
        with one.transaction():
            say(one, 1)
            with contextlib.suppress(ZeroDivisionError), one.transaction():
                say(one, 2)
                raise ZeroDivisionError
            with one.transaction():
                say(one, 3)
            with contextlib.suppress(ZeroDivisionError), two.transaction():
                say(two, 4)
                raise ZeroDivisionError
            # It is not waited for, and committed later it is not lost.
            say(two, 5)
            assert await heard(stream, 1) == [5]
            [result] = await take(later)
        assert await heard(stream, 2) == [1, 3]
        say(two, 6)
        assert await heard(stream, 1) == [6]
        async with watch(manager, "c", resume=token(result)) as resumed:
            assert await heard(resumed, 3) == [1, 3, 6]


async def test_the_id_that_sql_is_given_is_the_events(url, session):
    async with managed(url) as manager:
        query = "subscription ($on: String!) { envelope(on: $on) }"
        async with watch(manager, "c", query) as stream:
            told = session().execute("SELECT fraiseql_subs.publish('c', 'told', '{}', 'acme', 'sql', '{}')").fetchone()
            # An event of a tenant is not for those without one.
            other = session().execute("SELECT fraiseql_subs.publish('c', 'told', '{}', source => 'sql')").fetchone()
            [envelope] = await heard(stream, 1)
    assert told
    assert other
    assert len(told[0]) == len(other[0]) == 32
    assert (envelope["id"], envelope["source"], envelope["tenant_id"]) == (other[0], "sql", None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("'', 't', '{}'", "channel: expected"),
        ("NULL, 't', '{}'", "channel: expected"),
        (r"E'\x01revoke', 't', '{}'", "channel: expected"),
        (r"E'a\nb', 't', '{}'", "channel: expected"),
        ("repeat('x', 1025), 't', '{}'", "channel: expected"),
        ("'c', '', '{}'", "event_type: expected"),
        ("'c', NULL, '{}'", "event_type: expected"),
        ("'c', 't', '[]'", "data: expected"),
        ("'c', 't', 'null'", "data: expected"),
        ("'c', 't', NULL", "data: expected"),
        ("'c', 't', '{}', previous => '1'", "previous: expected"),
        ("'c', 't', jsonb_build_object('x', repeat('x', 1048568))", "data has 1048577 bytes"),
        ("'c', 't', '{}', previous => jsonb_build_object('x', repeat('x', 1048568))", "previous has 1048577 bytes"),
        (r"""'c', 't', '{"x": "\u0000"}'""", "unsupported Unicode escape"),
        (r"""'c', 't', '{"x": "\ud800"}'""", "invalid input syntax for type json"),
    ],
)
def test_publish_refuses(session, arguments, said):
    connection = session()
    with pytest.raises(psycopg.Error, match=said):
        connection.execute(f"SELECT fraiseql_subs.publish({arguments})")
    assert connection.execute("SELECT FROM fraiseql_subs.event").fetchall() == []


def test_publish_takes_what_is_just_allowed(session):
    connection = session()
    for arguments in (
        "repeat('x', 1024), 't', '{}'",
        "'c', 't', jsonb_build_object('x', repeat('x', 1048567))",
        "'c', 't', '{}', previous => jsonb_build_object('x', repeat('x', 1048567))",
    ):
        connection.execute(f"SELECT fraiseql_subs.publish({arguments})")
    sizes = connection.execute("SELECT size FROM fraiseql_subs.event ORDER BY seq").fetchall()
    assert sizes == [(2,), (1048576,), (1048578,)]


def test_a_transaction_notifies_once_and_names_itself(session):
    writer, listener = session(), session()
    listener.execute('LISTEN "fraiseql_subs:fraiseql_subs"')
    with writer.transaction():
        for n in range(10):
            say(writer, n, f"c{n}")
        number = writer.execute("SELECT pg_current_xact_id()::text").fetchone()
    assert number
    say(writer, 10)
    first, second = listener.notifies(timeout=PATIENCE, stop_after=2)
    assert first.payload == number[0]
    assert int(second.payload) > int(number[0])


def test_every_level_of_isolation_may_publish_and_two_phases_are_refused(session):
    one, two = session(), session()
    one.isolation_level = two.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    for n in range(20):
        with one.transaction(), two.transaction():
            say(one, n)
            say(two, n)
    plain = session()
    assert advance(plain)[0] == 40
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="NOTIFY"):
        plain.execute("BEGIN; SELECT fraiseql_subs.publish('c', 't', '{}'); PREPARE TRANSACTION 'a'")


# ---- positions ----


def test_an_event_has_one_position_whenever_its_transaction_ends(session):
    """Many transactions, ended in any order while positions are given; what is seen early is answered by others."""
    chance = random.Random(7)
    writers = [session() for _ in range(8)]
    giver, reader = session(), session()
    numbers, accepted, causes = itertools.count(), set[int](), dict[int, list[int]]()
    open_: dict[int, list[int]] = {}
    for _ in range(1500):
        match chance.choice(["write", "write", "end", "advance", "within"]):
            case "write":
                at, n = chance.randrange(len(writers)), next(numbers)
                if at not in open_:
                    writers[at].execute("BEGIN")
                    open_[at] = []
                # It comes after all that it could see.
                causes[n] = [*accepted][-20:]
                say(writers[at], n)
                open_[at].append(n)
            case "end" if open_:
                at = chance.choice([*open_])
                ends_well = chance.random() < 0.8
                writers[at].execute("COMMIT" if ends_well else "ROLLBACK")
                ended = open_.pop(at)
                accepted.update(ended if ends_well else [])
            case "within" if open_:
                # By one that has published itself: its own events are left for later.
                assert advance(writers[chance.choice([*open_])])
                for at in [*open_]:
                    writers[at].execute("COMMIT")
                    accepted.update(open_.pop(at))
            case "advance":
                advance(giver)
                assert {*positioned(reader)} == accepted
    for at, ended in open_.items():
        writers[at].execute("COMMIT")
        accepted.update(ended)
    advance(giver)
    order = positioned(reader)
    assert len(order) == len(accepted) == len({*order})
    place = {n: at for at, n in enumerate(order)}
    assert all(place[cause] < place[n] for n in order for cause in causes[n])


def test_one_at_a_time_and_nobody_waits(session):
    one, two = session(), session()
    say(one, 1)
    with one.transaction():
        assert advance(one)[0] == 1
        # What the other has not committed is not seen yet.
        assert advance(two) is None
        say(two, 2)
    assert advance(two)[0] == 1
    assert positioned(two) == [1, 2]
    assert advance(two)[0] == 0
    two.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with pytest.raises(psycopg.Error, match="READ COMMITTED"), two.transaction():
        advance(two)


def test_nothing_to_do_leaves_no_trace(session):
    connection = session()
    say(connection, 1)
    advance(connection)
    before = connection.execute(
        "SELECT pg_current_wal_insert_lsn(), pg_snapshot_xmax(pg_current_snapshot())"
    ).fetchone()
    advance(connection)
    after = connection.execute("SELECT pg_current_wal_insert_lsn(), pg_snapshot_xmax(pg_current_snapshot())").fetchone()
    assert before == after


async def test_a_great_many_come_part_by_part_and_in_order(url, session):
    async with managed(url) as manager, watch(manager, "c") as stream:
        connection, count = session(), 25_000
        with connection.transaction():
            connection.execute(
                "SELECT count(fraiseql_subs.publish('c', 'told', jsonb_build_object('n', n)))"
                " FROM generate_series(1, %s) AS n",
                (count,),
            )
            say(session(), 0)
            assert await heard(stream, 1) == [0]
        say(connection, count + 1)
        assert await heard(stream, count + 1) == [*range(1, count + 2)]
        ticks = connection.execute("SELECT count(*) FROM fraiseql_subs.tick WHERE target IS NOT NULL").fetchone()
        assert ticks
        assert ticks[0] >= 2


async def test_who_leads_may_be_gone_at_any_moment(url, session):
    connection = session()
    name = "PostgreSQL at 127.0.0.1"
    async with managed(url) as one, managed(url) as two, watch(one, "c") as first, watch(two, "c") as second:
        for n in range(6):
            say(connection, n)
            assert await heard(first, 1) == await heard(second, 1) == [n]
            listeners = connection.execute(LISTENERS).fetchall()
            assert len(listeners) == 2
            connection.execute("SELECT pg_terminate_backend(%s)", listeners[n % 2])
            say(connection, 100 + n)
            assert await heard(first, 1) == await heard(second, 1) == [100 + n]
            await until(lambda: one.health()["ok"] and two.health()["ok"])
        errors = {one.health()["bus"]["last_error"], two.health()["bus"]["last_error"]}
        assert any(error and error.startswith(name) for error in errors)


async def test_channels_that_nobody_watches_are_not_read(url, session):
    connection = session()
    async with managed(url) as manager, watch(manager, "c") as stream:
        await asyncio.to_thread(lambda: [say(connection, n, f"other{n}") for n in range(200)])
        say(connection, 1)
        assert await heard(stream, 1) == [1]
        assert manager.health()["ok"]


# ---- a server that is there, and takes nothing ----


def read_only(connection: Connection, value: str) -> None:
    connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
    connection.execute("SELECT pg_reload_conf()")


REFUSING = {
    "read-only": (lambda db: read_only(db, "on"), lambda db: read_only(db, "off")),
    "permission denied": (
        lambda db: db.execute("REVOKE EXECUTE ON FUNCTION fraiseql_subs.publish_sent FROM worker"),
        lambda db: db.execute("GRANT EXECUTE ON FUNCTION fraiseql_subs.publish_sent TO worker"),
    ),
}


@pytest.mark.parametrize("said", REFUSING)
async def test_a_server_that_takes_nothing_is_told_and_gone_back_to(start_server, said):
    server = start_server(PostgreSQL)
    with connect(server.url) as admin:
        assert _core.postgres_install(server.url, "fraiseql_subs")
        admin.execute("CREATE ROLE worker LOGIN PASSWORD 'secret'; GRANT USAGE ON SCHEMA fraiseql_subs TO worker")
        admin.execute("GRANT SELECT ON ALL TABLES IN SCHEMA fraiseql_subs TO worker")
        admin.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA fraiseql_subs TO worker")
        url = server.url.replace(f"postgres:{server.password}", "worker:secret")
        async with managed(url) as here, managed(url) as idle, watch(idle, "c") as stream:
            await tell(here, "c", 1)
            assert await heard(stream, 1) == [1]
            refuse, accept = REFUSING[said]
            refuse(admin)
            refused = time.perf_counter()
            if said == "read-only":  # who publishes nothing notices too
                await until(lambda: not idle.health()["ok"])
            with pytest.raises(BusUnavailable, match=said):
                await tell(here, "c", 2)
            await until(lambda: not here.health()["ok"])
            assert time.perf_counter() - refused < 2
            for _ in range(3):  # and it stays so
                await asyncio.sleep(0.2)
                assert not here.health()["ok"]
                assert said in here.health()["bus"]["last_error"]
            accept(admin)
            back = time.perf_counter()
            await until(lambda: here.health()["ok"] and idle.health()["ok"])
            await tell(here, "c", 3)
            assert await heard(stream, 1) == [3]
            assert time.perf_counter() - back < 2
        assert events(admin, "data") == [{"n": 1}, {"n": 3}]


async def test_of_several_hosts_the_one_that_takes_events_is_taken(postgres_server, start_server):
    other = start_server(PostgreSQL, "default_transaction_read_only = on")
    assert other.password == postgres_server.password
    url = postgres_server.url.replace("127.0.0.1", f"127.0.0.1:{other.port},127.0.0.1")
    async with managed(url, schema="several", install=True) as manager, watch(manager, "c") as stream:
        await tell(manager, "c", 1)
        assert await heard(stream, 1) == [1]


# ---- another life of the server ----


def restore(server: PostgreSQL, url: str, copy: str) -> None:
    """A dump of one database, restored into another one."""
    dump = subprocess.run([server.program("pg_dump"), url], capture_output=True, check=True).stdout
    command = [str(server.program("psql")), "--set=ON_ERROR_STOP=1", "--quiet", "--dbname", copy]
    subprocess.run(command, input=dump, check=True, stdout=subprocess.DEVNULL)


async def test_a_restored_dump_is_another_bus_that_has_the_same_events(postgres_server, url, session):
    connection = session()
    async with managed(url) as manager, watch(manager, "c", resume=True) as stream:
        await tell(manager, "c", 1, 2)
        old = token((await take(stream, 2))[0])
        async with watch(manager, "c", resume=old) as resumed:
            assert await heard(resumed, 1) == [2]
    # It has no position yet, in the dump as well. Numbers of transactions may be anything elsewhere.
    connection.execute("SELECT pg_current_xact_id()")
    say(connection, 3)
    connection.execute("UPDATE fraiseql_subs.event SET txid = '9000000000' WHERE (data->>'n')::int = 2")
    with database(postgres_server, installed=False) as copy, connect(copy) as restored:
        await asyncio.to_thread(restore, postgres_server, url, copy)
        async with managed(copy) as manager, watch(manager, "c", resume=True) as stream:
            assert positioned(restored) == [1, 2, 3]
            with pytest.raises(HistoryLost):
                async with watch(manager, "c", resume=old):
                    pass
            say(restored, 4)
            [result] = await take(stream)
            assert result["data"]["numbered"]["n"] == 4
            say(restored, 5)
            async with watch(manager, "c", resume=token(result)) as resumed:
                assert await heard(resumed, 1) == [5]
            assert positioned(restored) == [1, 2, 3, 4, 5]


async def test_a_server_that_took_another_way_begins_an_epoch(start_server):
    """A standby that is promoted, or a recovery to an earlier moment: the same data, on another timeline."""
    server = start_server(PostgreSQL)
    async with managed(server.url, install=True) as manager, watch(manager, "c", resume=True) as stream:
        await tell(manager, "c", 1)
        old = token((await take(stream))[0])
        await asyncio.to_thread(server.stop)
        (server.directory / "data/recovery.signal").touch()
        server.lines.append("restore_command = 'false'")
        await asyncio.to_thread(server.start)
        await until(lambda: manager.health()["ok"])
        with pytest.raises(HistoryLost):
            async with watch(manager, "c", resume=old):
                pass
        await tell(manager, "c", 2)
        [result] = await take(stream)
        assert result["data"]["numbered"] == {"n": 2}
        assert result["extensions"]["gap"] is True
        async with watch(manager, "c", resume=token(result)) as resumed:
            await tell(manager, "c", 3)
            assert await heard(resumed, 1) == await heard(stream, 1) == [3]


async def test_a_schema_that_is_made_anew_under_a_bus_is_noticed(url, session):
    connection = session()
    async with managed(url, install=True) as manager, watch(manager, "c") as stream, watch(manager, "d") as other:
        await tell(manager, "c", 1)
        assert await heard(stream, 1) == [1]
        connection.execute("DROP SCHEMA fraiseql_subs CASCADE")
        await until(lambda: not manager.health()["ok"])
        await until(lambda: manager.health()["ok"])
        await tell(manager, "c", 2)
        await tell(manager, "d", 3)
        for stream_, n in ((stream, 2), (other, 3)):
            [result] = await take(stream_)
            assert (result["data"]["numbered"]["n"], result["extensions"]) == (n, {"gap": True})


def test_numbers_that_a_crash_gives_again_are_no_other_events(start_server):
    """Transactions that were open when the server died leave numbers that others get."""
    server = start_server(PostgreSQL)
    expected: list[int] = []
    _core.postgres_install(server.url, "fraiseql_subs")
    for life in range(6):
        with contextlib.suppress(psycopg.OperationalError), contextlib.ExitStack() as stack:
            sessions = [stack.enter_context(connect(server.url)) for _ in range(6)]
            for session in sessions[1:5]:
                session.execute("BEGIN")
                session.execute("SELECT pg_current_xact_id()")
            for session in sessions[2:4]:
                say(session, -1)
            for n in range(3):
                say(sessions[0], 10 * life + n)
                expected.append(10 * life + n)
                advance(sessions[5])
            say(sessions[0], 10 * life + 9)
            expected.append(10 * life + 9)
            server.kill()
        server.start()
    with connect(server.url) as connection:
        advance(connection)
        assert positioned(connection) == expected


# ---- pruning ----


def prune(connection: Connection, history: int, age: float, *more: float) -> Any:
    places = ", ".join(["%s"] * (2 + len(more)))
    row = connection.execute(f"SELECT fraiseql_subs.prune({places})", (history, age, *more)).fetchone()
    assert row
    return row[0]


async def test_a_channel_keeps_its_newest_and_tokens_know(url, session):
    connection = session()
    async with managed(url) as manager:
        tokens: dict[str, list[str]] = {}
        for channel in ("busy", "quiet"):
            async with watch(manager, channel, resume=True) as stream:
                await tell(manager, channel, *range(10 if channel == "busy" else 2))
                tokens[channel] = [token(result) for result in await take(stream, 10 if channel == "busy" else 2)]
        assert prune(connection, 3, 3600, 4) == 4
        assert prune(connection, 3, 3600, 100, 60) == 0  # the young are spared
        assert prune(connection, 3, 3600, 100) == 3
        assert prune(connection, 3, 3600) == 0
        assert positioned(connection) == [7, 8, 9, 0, 1]
        async with watch(manager, "busy", resume=tokens["busy"][6]) as stream:
            assert await heard(stream, 3) == [7, 8, 9]
        async with watch(manager, "quiet", resume=tokens["busy"][0]) as stream:
            assert await heard(stream, 2) == [0, 1]
        for lost in (tokens["busy"][5], tokens["busy"][0]):
            with pytest.raises(HistoryLost):
                async with watch(manager, "busy", resume=lost):
                    pass
        # By age, with all that is counted.
        assert prune(connection, 100, 1e-6) == 5
        counts = connection.execute("SELECT channel, kept FROM fraiseql_subs.channel ORDER BY 1").fetchall()
        assert counts == [("busy", 0), ("quiet", 0)]
        # A channel is forgotten a day later, and a token from before it is lost on any that is not known.
        connection.execute(
            "UPDATE fraiseql_subs.channel SET last = last - 2 * 86400000000::bigint WHERE channel = 'quiet'"
        )
        prune(connection, 100, 1)
        assert connection.execute("SELECT channel FROM fraiseql_subs.channel").fetchall() == [("busy",)]
        floor = connection.execute("SELECT floor > 0 FROM fraiseql_subs.pruning").fetchone()
        assert floor == (True,)


def test_one_prunes_at_a_time(session):
    one, two = session(), session()
    for n in range(5):
        say(one, n)
    advance(one)
    with one.transaction():
        assert prune(one, 2, 3600) == 3
        assert prune(two, 1, 3600) == 0
    assert prune(two, 1, 3600) == 1


async def test_what_was_pruned_while_a_reader_was_away_is_a_gap_on_its_channels_alone(url, session):
    connection, blocker = session(), session()
    async with managed(url) as manager, watch(manager, "c") as stream, watch(manager, "d") as other:
        await tell(manager, "c", 1)
        assert await heard(stream, 1) == [1]
        with blocker.transaction():
            blocker.execute("LOCK TABLE fraiseql_subs.meta IN ACCESS EXCLUSIVE MODE")
            connection.execute(f"SELECT pg_terminate_backend(pid) FROM ({LISTENERS}) AS listeners")
            await until(lambda: not manager.health()["ok"])
            connection.execute("""
                INSERT INTO fraiseql_subs.event (channel, event_type, data)
                SELECT channel, 'told', json_build_object('n', n)
                FROM unnest('{c,d}'::text[]) AS channel, generate_series(2, 5) AS n WHERE channel = 'c' OR n = 2
            """)
            assert advance(blocker)[0] == 5
            assert prune(blocker, 2, 3600) == 3
        [missed, *_] = results = await take(stream, 2)
        assert [result["data"]["numbered"]["n"] for result in results] == [4, 5]
        assert missed["extensions"] == {"gap": True}
        assert await heard(other, 1) == [2]


# ---- what is not as expected ----


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dsn": "mysql://u:hunter2@h/d"}, "dsn: expected a URL"),
        ({"dsn": "postgresql://u:hunter2@h/d?colour=red"}, "dsn: unknown option `colour`"),
        ({"dsn": "postgresql://u:hunter2@h/d?sslmode=allow"}, "dsn: sslmode"),
        ({"dsn": "user=u password=hunter2"}, "dsn: it names no host"),
        ({"listen_dsn": "host=h password='hunter2"}, "listen_dsn: a quote"),
        ({"schema": ""}, "schema: expected"),
        ({"schema": "pg_mine"}, "schema: expected"),
        ({"schema": 'a"b'}, "schema: expected"),
        ({"schema": "a" * 49}, "schema: expected"),
        ({"history": -1}, "history: expected"),
        ({"history_age": 0}, "history_age: expected"),
        ({"connect_timeout": -1}, "connect_timeout: expected"),
        ({"publish_timeout": float("nan")}, "publish_timeout: expected"),
    ],
)
def test_wrong_options_are_refused_at_once_and_no_password_is_told(arguments, said):
    given: dict[str, Any] = {"dsn": "postgresql://u:hunter2@h/d", **arguments}
    with pytest.raises(ValueError, match=said) as raised:
        EventBusConfig.postgresql(**given)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("name", ["dsn", "listen_dsn", "schema", "install", "history", "history_age"])
def test_options_of_another_type_are_refused(name):
    given: dict[str, Any] = {"dsn": "postgresql://h/d", name: b"1"}
    with pytest.raises(TypeError, match=f"{name}: expected"):
        EventBusConfig.postgresql(**given)


def test_no_password_is_shown():
    config = EventBusConfig.postgresql("postgresql://u:hunter2@h/d", listen_dsn="host=h password=hunter3")
    assert "hunter" not in repr(config)


async def test_a_database_without_the_schema_or_with_an_older_one_is_refused(postgres_server, url, session):
    with database(postgres_server, installed=False) as empty, pytest.raises(BusUnavailable, match="pg install"):
        async with managed(empty):
            pass
    session().execute("UPDATE fraiseql_subs.meta SET version = 0")
    with pytest.raises(BusUnavailable, match="pg install"):
        async with managed(url):
            pass


async def test_notifications_of_others_mean_nothing(url, session):
    connection = session()
    async with managed(url) as manager, watch(manager, "c") as stream:
        for payload in (
            "",
            "x",
            "p",
            "p 1 2",
            "-5",
            "99999999999999999999",
            "18446744073709551615",
            "p a b c d e",
            "p 1 2 3 4 5",
        ):
            connection.execute("SELECT pg_notify('fraiseql_subs:fraiseql_subs', %s)", (payload,))
            say(connection, 1)
            assert await heard(stream, 1) == [1]


async def test_publishers_of_one_process_share_statements_and_each_hears_its_own_answer(url, session):
    connection = session()
    async with managed(url) as manager, watch(manager, "c") as stream:
        ids = await asyncio.gather(*(manager.publish_event("told", "c", {"n": n}) for n in range(500)))
        assert len({*ids}) == 500
        assert await heard(stream, 500) == [*range(500)]
        transactions = connection.execute("SELECT count(DISTINCT txid) FROM fraiseql_subs.event").fetchone()
        assert transactions
        assert transactions[0] < 100
        # One that the server refuses does not cost the others theirs.
        connection.execute("ALTER TABLE fraiseql_subs.event ADD CHECK ((data->>'n')::int <> 3) NOT VALID")
        outcomes = await asyncio.gather(
            *(manager.publish_event("told", "c", {"n": n}) for n in range(6)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [str, str, str, ValueError, str, str]
        assert await heard(stream, 5) == [0, 1, 2, 4, 5]


async def test_publishing_does_not_wait_for_a_long_transaction_nor_for_a_lock_of_others(url, session):
    holder = session()
    async with managed(url) as manager, watch(manager, "c") as stream:
        with holder.transaction():
            say(holder, 0)
            holder.execute("SELECT fraiseql_subs.publish('d', 't', '{}')")
            threads = [
                threading.Thread(target=say, args=(session(), n, channel)) for n, channel in ((1, "c"), (2, "d"))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
                assert not thread.is_alive()
            assert await heard(stream, 1) == [1]
        assert await heard(stream, 1) == [0]


async def test_where_the_server_is_there_a_publish_waits_for_its_connection_to_come_back(postgres_server, url):
    async with (
        Proxy(postgres_server.port) as proxy,
        managed(proxy.through(url), listen_dsn=url, publish_timeout=1.0) as manager,
        watch(manager, "c") as stream,
    ):
        for n in range(5):
            await proxy.refuse()
            await until(lambda: not manager.health()["bus"]["connected"])
            if n % 2:
                with pytest.raises(BusUnavailable):  # the next attempt fails
                    await tell(manager, "c", -1)
            await proxy.accept()
            await tell(manager, "c", n)
            assert await heard(stream, 1) == [n]
        # Connections are taken, and nothing is answered: it waits no longer than it may.
        proxy.stall()
        proxy.cut()
        await until(lambda: not manager.health()["bus"]["connected"])
        began = time.perf_counter()
        outcomes = await asyncio.gather(*(tell(manager, "c", -1) for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [BusUnavailable] * 3
        assert 0.9 < time.perf_counter() - began < 2
        proxy.forward()
        await until(lambda: manager.health()["bus"]["connected"])
        await tell(manager, "c", 9)
        assert await heard(stream, 1) == [9]
