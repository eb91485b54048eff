"""The command `fraiseql-subs`."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from . import _core
from .errors import BusUnavailable

# Between `://` and the last `@`, and behind `password=`.
_SECRET = re.compile(r"""(://).*(?=@)|(pass(?:word)?\s*=\s*)(?:'(?:\\.|[^'])*'|[^\s&']+)""", re.DOTALL)


class _Parser(argparse.ArgumentParser):
    """Its errors repeat what was given, which may be a URL in the wrong place; its password they do not."""

    def error(self, message: str) -> NoReturn:
        super().error(_without_secrets(message))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (default: the process's own) and returns its exit status."""
    parser = _Parser(prog="fraiseql-subs", description="GraphQL subscriptions for Python.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="serve an application with subscriptions and a page that shows them")
    demo.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    demo.add_argument(
        "--port", type=_number(int, most=2**16 - 1), default=0, help="port to listen on (default: a free one)"
    )
    demo.add_argument("--bus", default="memory", choices=["memory", "redis", "postgresql"], help="where its events go")
    demo.add_argument("url", nargs="?", help="of that bus (default: of a server that is started for the demo)")
    demo.add_argument("--check", action="store_true", help="receive a few events over a socket, print them, and exit")
    demo.set_defaults(run=_demo)
    _add_pg(commands.add_parser("pg", help="what the PostgreSQL bus needs in a database"))
    given = parser.parse_args(arguments)
    status: int = given.run(given)
    return status


def _demo(given: argparse.Namespace) -> int:
    try:
        from . import demo as application
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fraiseql_subs"):
            raise
        return _fail(f"the demo needs {error.name}: pip install 'fraiseql-subs[demo]'")
    return application.run(given.host, given.port, check=given.check, bus=given.bus, url=given.url)


def _add_pg(pg: argparse.ArgumentParser) -> None:
    """The commands of PostgreSQL."""
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument("--dsn", help="the database, as a URL or as libpq's key=value (default: DATABASE_URL)")
    everywhere.add_argument("--schema", default="fraiseql_subs", help="where the bus is (default: %(default)s)")
    commands = pg.add_subparsers(dest="pg", required=True)

    def add(name: str, run: object, purpose: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, parents=[everywhere], help=purpose, description=purpose)
        command.set_defaults(run=_pg, pg=run)
        return command

    add("install", _install, "make the bus's schema, or bring an older one up to date; again and again if need be")
    add("sql", _sql, "print what install runs")
    track = add("track", _track, "have a table publish each row that is inserted, updated or deleted")
    track.add_argument("table", help='as in SQL: public.orders, or "Orders" with its quotes')
    track.add_argument("--channel", help="where to publish (default: the table's name)")
    track.add_argument("--tenant-column", help="the column that says whose the row is (default: nobody's)")
    track.add_argument("--columns", type=lambda text: text.split(","), help="the columns to send, A,B (default: all)")
    track.add_argument(
        "--oversize", default="raise", choices=["raise", "key-only"],
        help="a row that is too large fails, or is sent as its primary key alone (default: %(default)s)",
    )  # fmt: skip
    untrack = add("untrack", _untrack, "have a table publish nothing any more")
    untrack.add_argument("table", help="as in SQL")
    prune = add("prune", _prune, "delete old events, as workers do by themselves")
    prune.add_argument(
        "--history", type=_number(int), default=10_000, help="how many events a channel keeps (default: %(default)s)"
    )
    prune.add_argument(
        "--history-age", type=_number(float), default=3600, help="for how many seconds (default: %(default)s)"
    )


def _number(kind: type[int | float], most: int = 2**32 - 1) -> Callable[[str], float]:
    """Reads one that is not negative."""

    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = -1
        if not 0 <= number <= most:
            raise argparse.ArgumentTypeError(f"expected a number from 0 to {most}, got {text}")
        return number

    return read


def _pg(given: argparse.Namespace) -> int:
    given.dsn = given.dsn or os.environ.get("DATABASE_URL")
    if not given.dsn and given.pg is not _sql:
        return _fail("which database? give --dsn, or set DATABASE_URL")
    # While Rust waits for the server, Python would not see Ctrl-C; the server rolls back.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        print(given.pg(given))
    except (BusUnavailable, ValueError) as error:
        return _fail(f"{error}{_about_quotes(given, str(error))}")
    return 0


def _about_quotes(given: argparse.Namespace, error: str) -> str:
    """What to write where SQL has read a name in lower case."""
    table: str = getattr(given, "table", "")
    if '"' in table or table == table.lower() or "does not exist (" not in error:
        return ""
    quoted = ".".join(f'"{name}"' for name in table.split("."))
    return f". SQL reads names without quotes in lower case: write '{quoted}', with both kinds of quotes"


def _sql(given: argparse.Namespace) -> str:
    return _core.postgres_sql(given.schema)


def _install(given: argparse.Namespace) -> str:
    before, now = _core.postgres_install(given.dsn, given.schema)
    was = "" if before == now else ", new" if before is None else f", was {before}"
    return f"{given.schema}: version {now}{was}"


def _track(given: argparse.Namespace) -> str:
    channel = _core.postgres_track(
        given.dsn, given.schema, given.table,
        channel=given.channel, tenant_column=given.tenant_column, columns=given.columns, oversize=given.oversize,
    )  # fmt: skip
    return f"{given.table} publishes on channel {channel}"


def _untrack(given: argparse.Namespace) -> str:
    tracked = _core.postgres_untrack(given.dsn, given.schema, given.table)
    return f"{given.table} publishes nothing any more" if tracked else f"{given.table} was not tracked"


def _prune(given: argparse.Namespace) -> str:
    return f"{_core.postgres_prune(given.dsn, given.schema, given.history, given.history_age)} events deleted"


def _without_secrets(text: str) -> str:
    return _SECRET.sub(r"\1\2…", text)


def _fail(reason: str) -> int:
    print(f"fraiseql-subs: {_without_secrets(reason)}", file=sys.stderr)
    return 1
