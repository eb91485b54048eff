"""The command `fraiseql-subs`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (default: the process's own) and returns its exit status."""
    parser = argparse.ArgumentParser(prog="fraiseql-subs", description="GraphQL subscriptions for Python.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="serve an application with subscriptions and a page that shows them")
    demo.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    demo.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    demo.add_argument("--bus", default="memory", choices=["memory", "redis", "postgresql"], help="where its events go")
    demo.add_argument("url", nargs="?", help="of that bus (default: of a server that is started for the demo)")
    demo.add_argument("--check", action="store_true", help="receive a few events over a socket, print them, and exit")
    given = parser.parse_args(arguments)
    try:
        from . import demo as application
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fraiseql_subs"):
            raise
        parser.exit(1, f"The demo needs {error.name}: pip install 'fraiseql-subs[demo]'\n")
    return application.run(given.host, given.port, check=given.check, bus=given.bus, url=given.url)
