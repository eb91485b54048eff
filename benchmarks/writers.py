"""What publishing costs those who write: transactions a second of pgbench, with a worker that hears of each event.

    python -m benchmarks.writers [SECONDS]

In turns, on one channel, every commit flushed: an insert of about 250 bytes; the same with one `NOTIFY`; the same
data by `fraiseql_subs.publish`.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import sys
import tempfile
from pathlib import Path

from fraiseql_subs.servers import PostgreSQL

from .buses import TEXT, manager_of, query

DATA = json.dumps({"n": 1, "at": 0.0, "text": TEXT})
SCRIPTS = {
    "insert": f"INSERT INTO written (data) VALUES ('{DATA}');",
    "insert_notify": f"WITH w AS (INSERT INTO written (data) VALUES ('{DATA}')) SELECT pg_notify('written', '');",
    "publish": f"SELECT fraiseql_subs.publish('c1', 'tick', '{DATA}');",
}
ROUNDS = 3


async def run(server: PostgreSQL, folder: Path, seconds: int) -> None:
    """Prints one line for each number of writers."""

    async def output(*command: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()
        return out.decode()

    manager = manager_of("postgresql", server.url)
    async with manager, manager.subscribe(query(1), framing="result") as stream:
        create = "CREATE TABLE written (id bigserial PRIMARY KEY, txid xid8 DEFAULT pg_current_xact_id(), data jsonb)"
        await output(str(server.program("psql")), server.url, "-c", create)

        async def hear() -> None:
            async for _ in stream:
                pass

        hearing = asyncio.create_task(hear())
        for writers in (1, 16, 64):
            found: dict[str, list[float]] = {name: [] for name in SCRIPTS}
            for _ in range(ROUNDS):
                for name in SCRIPTS:
                    script = ("-f", str(folder / name))
                    how = ("-n", "-c", str(writers), "-j", "2", "-T", str(seconds), *script)
                    out = await output(str(server.program("pgbench")), *how, server.url)
                    [tps] = re.findall(r"tps = ([\d.]+)", out)
                    found[name].append(float(tps))
            medians = {name: round(statistics.median(tps)) for name, tps in found.items()}
            kept = medians["publish"] / medians["insert_notify"]
            print(json.dumps({"writers": writers, **medians, "publish_to_insert_notify": round(kept, 2)}), flush=True)
        hearing.cancel()


def main() -> None:
    """Runs it on a server of its own."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    # pgbench opens so many connections at once.
    lines = ("max_connections = 200", "fsync = on", "full_page_writes = on")
    with PostgreSQL(*lines) as server, tempfile.TemporaryDirectory() as name:
        for script, text in SCRIPTS.items():
            Path(name, script).write_text(text)
        asyncio.run(run(server, Path(name), seconds))


if __name__ == "__main__":
    main()
