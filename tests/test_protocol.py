"""The transcripts of the protocol machine, played over a real socket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fraiseql_subs import Limits, SecurityContext, SubscriptionManager
from fraiseql_subs.asgi import Connection

from .sockets import Client, publish_tick, ticking

FOLDER = Path(__file__).parent.parent / "rust" / "engine" / "tests" / "transcripts"
ACKNOWLEDGED = ['> {"type":"connection_init"}', "! acknowledge", '< {"type":"connection_ack"}']


def transcripts() -> dict[str, list[str]]:
    """Every transcript that is not for the machine alone, by file and title."""
    found = {}
    for path in sorted(FOLDER.glob("*.txt")):
        for transcript in path.read_text().split("\n== ")[1:]:
            title, *lines = transcript.splitlines()
            if not title.endswith(" (machine)"):
                found[f"{path.stem}: {title}"] = lines
    return found


TRANSCRIPTS = transcripts()


class Driver:
    """One connection of a transcript, and the application behind it."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[SecurityContext | None] = asyncio.get_running_loop().create_future()
        self.connection_id = ""

    async def authenticate(self, payload: dict[str, Any], connection: Connection) -> SecurityContext | None:
        self.connection_id = connection.id
        return await self.answer

    async def play(self, manager: SubscriptionManager, client: Client, lines: list[str]) -> None:
        closed = False
        for line in lines:
            if line.startswith(("#", "*", "=", "?", "! answer")) or not line:
                continue
            if line.startswith("> "):
                await client.send(line[2:])
            elif line == ">binary":
                await client.send(b"{}")
            elif line.startswith("<close "):
                code, reason = line.removeprefix("<close ").split(" ", 1)
                assert await client.closed() == (int(code), reason)
                closed = True
            elif line.startswith("< "):
                assert await client.receive() == line[2:]
            else:
                if not closed:
                    await client.sync()  # what was sent before is handled
                await self.act(manager, line)
        if not closed:
            await client.sync()  # nothing is left

    async def act(self, manager: SubscriptionManager, line: str) -> None:
        action, _, rest = line.removeprefix("! ").partition(" ")
        if action == "acknowledge":
            if not self.answer.done():
                self.answer.set_result(SecurityContext())
        elif action == "refuse":
            self.answer.set_result(None)
        elif action == "next":
            operation, result = rest.split(" ", 1)
            await publish_tick(manager, operation, **json.loads(result)["data"]["tick"])
        elif action == "complete":
            await manager.complete_subscription(rest, self.connection_id)
        else:
            raise AssertionError(f"no transcript line: {line}")


def test_the_transcripts_are_found():
    assert len(TRANSCRIPTS) >= 74


@pytest.mark.parametrize("title", TRANSCRIPTS)
async def test_transcript(title: str) -> None:
    lines = [part for line in TRANSCRIPTS[title] for part in (ACKNOWLEDGED if line == "+acknowledged" else [line])]
    limits = Limits()
    changed = [line.removeprefix("* ").split(" = ") for line in lines if line.startswith("* ")]
    if changed:
        limits = Limits(**{name: type(getattr(limits, name))(value) for name, value in changed})
    driver = Driver()
    async with ticking(limits=limits, auth_handler=driver.authenticate) as (manager, server):
        async with server.client() as client:
            await driver.play(manager, client, lines)
