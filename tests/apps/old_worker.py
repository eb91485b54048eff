"""A process of an older version on a bus, for `test_faults.py`: `bus_worker`, with what version 1 says on the wire.

It runs what `tests/versions/1` has, by clients that have nothing to do with this package, and relies on what that
version relied on: each event names the one before it in its channel, and offsets grow.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import redis.asyncio

from fraiseql_subs import Event
from tests.apps import bus_worker

if TYPE_CHECKING:
    from typing_extensions import Self

VERSION = 1
FROZEN = Path(__file__).parents[1] / "versions" / str(VERSION)
#: Of the options' defaults, in seconds: how long events are kept, how long the last offset, how long an outcome.
AGE, KEPT, REMEMBERED = 3600, 3600 + 86_400, 20
REVOKE = "\x01revoke"


class Stream:
    """What comes on a channel, as messages."""

    def __init__(self, manager: Old, channel: str, queue: asyncio.Queue[tuple[Any, str]]) -> None:
        self._manager = manager
        self._channel = channel
        self._queue = queue

    async def __aenter__(self) -> Self:
        await self._manager.watch([self._channel])
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        position, identity = await self._queue.get()
        return json.dumps({"data": {"told": {"id": identity}}, "extensions": {"eventId": str(position)}}).encode()


class Old:
    """As much of a `SubscriptionManager` as a worker calls."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.url: str = given["url"]
        self.application: str = given["application"]
        self._queues: dict[str, asyncio.Queue[tuple[Any, str]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def publish_event(self, event_type: str, channel: str, data: dict[str, Any]) -> None:
        await self.publish_events([Event(event_type, channel, data)])

    async def publish_events(self, events: list[Event]) -> None:
        raise NotImplementedError

    async def watch(self, channels: list[str]) -> None:
        """Everything that comes on these channels is heard from now on."""
        raise NotImplementedError

    def heard(self, channel: str, position: object, event: dict[str, Any]) -> None:
        if event["v"] != VERSION:
            bus_worker.say(skipped=channel)
        elif channel in self._queues:
            self._queues[channel].put_nowait((position, event["data"]["id"]))

    def subscribe(self, _: str, *, variables: dict[str, str], **__: object) -> Stream:
        self._queues[variables["on"]] = asyncio.Queue()
        return Stream(self, variables["on"], self._queues[variables["on"]])

    def health(self) -> dict[str, Any]:
        return {"bus": {"connected": True}}


class OldRedis(Old):
    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(given)
        self._client = redis.asyncio.Redis.from_url(self.url)
        self._listener = self._client.pubsub()
        clock = (FROZEN / "clock.lua").read_text()
        self._scripts = {name: f"{clock}\n{(FROZEN / f'{name}.lua').read_text()}" for name in ("publish", "pulse")}
        self._last: dict[str, int] = {}
        self._epoch = "0" * 16

    async def _run(self, name: str, *arguments: object) -> Any:
        given = [self.application, "0", uuid4().hex[:16], str((AGE + 43_200) * 10**6), *map(str, arguments)]
        return await self._client.eval(self._scripts[name], 0, *given)

    async def __aenter__(self) -> Self:
        # Who has seen nothing knows of nothing that is lost.
        self._epoch = (await self._run("pulse", self._epoch, "", 0, ""))[0].decode()
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.cancel()
        await self._listener.aclose()
        await self._client.aclose()

    async def publish_events(self, events: list[Event], *, version: int = VERSION) -> None:
        names = [*dict.fromkeys(event.channel for event in events)]
        known = max(self._last.values(), default=0)
        lasting = (REMEMBERED * 1000, AGE * 1000, KEPT * 1000)
        arguments: list[object] = [known, "first", uuid4().hex, self._epoch, *lasting, len(names)]
        for name in names:
            arguments += [name, 10_000]
        for event in events:
            envelope = {"v": version, "id": event.id, "type": event.event_type}
            if event.channel == REVOKE:
                envelope |= {"all": True, "source": "an old one"}
            envelope |= {"at": time.time_ns() // 1000, "data": event.data}
            arguments += [names.index(event.channel) + 1, json.dumps(envelope, separators=(",", ":"))]
        epoch, offset = (await self._run("publish", *arguments)).decode().split(" ")
        assert (epoch, offset.isdigit()) == (self._epoch, True)

    async def watch(self, channels: list[str]) -> None:
        await self._listener.subscribe(*(f"{self.application}:0:e:{channel}" for channel in channels))

    async def _listen(self) -> None:
        while True:
            if not self._listener.subscribed:
                await asyncio.sleep(0.01)
                continue
            told = await self._listener.get_message(ignore_subscribe_messages=True, timeout=1)
            if told is None:
                continue
            channel = told["channel"].decode().removeprefix(f"{self.application}:0:e:")
            epoch, *lines = told["data"].decode().split("\n")
            assert epoch == self._epoch
            for line in lines:
                offset, previous, text = line.split(" ", 2)
                last = self._last.get(channel)
                assert last is None or int(previous) == last < int(offset), f"a hole in {channel}: {last} {line}"
                self._last[channel] = int(offset)
                self.heard(channel, f"{epoch}:{offset}", json.loads(text))


class OldPostgreSQL(Old):
    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(given)
        schema = f'"{self.application}"'
        self._sql = {file.stem: file.read_text().replace("@schema@", schema) for file in FROZEN.glob("*.sql")}
        self._advancing, self._publishing = asyncio.Lock(), asyncio.Lock()
        self._last = 0

    async def __aenter__(self) -> Self:
        self._stack = contextlib.AsyncExitStack()
        self._publisher, self._listener, self._reader = [
            await self._stack.enter_async_context(
                await psycopg.AsyncConnection.connect(self.url, autocommit=True, cursor_factory=psycopg.AsyncRawCursor)
            )
            for _ in range(3)
        ]
        await self._listener.execute(f'LISTEN "fraiseql_subs:{self.application}"')
        self._last = await self._advance()
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.cancel()
        await asyncio.wait([self._listening])
        await self._stack.aclose()

    async def publish_events(self, events: list[Event], *, version: int = VERSION) -> None:
        columns = [
            [uuid4() for _ in events],
            [event.channel for event in events],
            [event.event_type for event in events],
            [None for _ in events],
            [event.channel == REVOKE for event in events],
            ["an old one" for _ in events],
            [json.dumps(event.data) for event in events],
            [None for _ in events],
        ]
        async with self._publishing, self._publisher.transaction():
            await self._publisher.execute(self._sql["publish"], columns)
            if version != VERSION:
                changed = f'UPDATE "{self.application}".event SET version = $1 WHERE id = ANY ($2)'
                await self._publisher.execute(changed, [version, columns[0]])

    async def watch(self, channels: list[str]) -> None:
        self._last = max(self._last, await self._advance())

    async def _advance(self) -> int:
        """Has positions given; up to where they go. Another may be at it."""
        async with self._advancing:
            while True:
                row = await (await self._reader.execute(self._sql["advance"])).fetchone()
                if row and not row[3]:
                    return int(row[1])

    async def _listen(self) -> None:
        async for told in self._listener.notifies():
            if not told.payload.startswith("p "):
                await self._advance()  # it leads, as others do
            through = int(told.payload.split(" ")[3]) if told.payload.startswith("p ") else self._last
            while self._last < through:
                async with self._advancing:
                    given = [[*self._queues], self._last, through]
                    rows = await (await self._reader.execute(self._sql["page"], given)).fetchall()
                for position, version, *_, data, _, channel, _ in rows:
                    assert position > self._last
                    self._last = position
                    self.heard(channel, position, {"v": version, "data": json.loads(data)})
                if not rows:
                    self._last = through


def old(given: dict[str, Any]) -> OldRedis | OldPostgreSQL:
    return OldPostgreSQL(given) if given["kind"] == "postgresql" else OldRedis(given)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    asyncio.run(bus_worker.Worker(given, old(given)).run())
