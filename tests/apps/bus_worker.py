"""A process on a bus, for `test_faults.py`: it publishes, listens, and says on its output all that it does and hears.

It says what it tries before it tries it, so that whoever reads knows what is in doubt when it is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Any

from fraiseql_subs import (
    BusUnavailable,
    Event,
    HistoryLost,
    Limits,
    PublishUnknown,
    Schema,
    SubscriptionManager,
    subscription,
)
from tests.buses import config


@dataclass
class Told:
    id: str


@subscription(channel="{on}", passthrough=True)
def told(on: str) -> Told:
    raise NotImplementedError


SCHEMA = Schema(subscriptions=[told])
TOLD = "subscription ($on: String!) { told(on: $on) { id } }"
#: Nothing is lost to a slow reader here.
LIMITS = Limits(queue_messages=1_000_000, queue_bytes=2**30, connection_queue_bytes=2**30)


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


class Worker:
    def __init__(self, given: dict[str, Any], manager: Any = None) -> None:
        self.name: str = given["name"]
        self.channels: list[str] = given["channels"]
        self.tokens: dict[str, str] = given["tokens"]
        bus = config(given["kind"], given["url"], given["application"], **given["options"])
        self.manager = manager or SubscriptionManager(SCHEMA, bus, limits=LIMITS)
        self.publishing = asyncio.Event()
        self.idle = [asyncio.Event() for _ in range(given["publishers"])]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        async with self.manager:
            tasks = [asyncio.create_task(self.listen(channel)) for channel in self.channels]
            tasks += [asyncio.create_task(self.publish(number)) for number in range(len(self.idle))]
            tasks.append(asyncio.create_task(self.watch_health()))
            while command := (await commands.readline()).decode().strip():
                if command == "publish":
                    self.publishing.set()
                elif command == "pause":
                    self.publishing.clear()
                    for idle in self.idle:
                        await idle.wait()
                    say(paused=True)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def listen(self, channel: str) -> None:
        resume: str | bool = self.tokens.get(channel, True)
        while True:
            stream = self.manager.subscribe(TOLD, variables={"on": channel}, framing="result", resume=resume)
            try:
                async with stream:
                    say(live=channel)
                    async for message in stream:
                        result = json.loads(message)
                        extensions = result["extensions"]
                        resume = extensions["eventId"]
                        say(heard=result["data"]["told"]["id"], on=channel, token=resume, gap="gap" in extensions)
            except HistoryLost:
                say(lost=channel)
                resume = True
            except BusUnavailable:
                say(unavailable=channel)

    async def publish(self, number: int) -> None:
        n = 0
        while True:
            if not self.publishing.is_set():
                self.idle[number].set()
                await self.publishing.wait()
                self.idle[number].clear()
            n += 1
            # Every fourth is a batch over all channels.
            ids = [f"{self.name}.{number}:{n}.{part}" for part in range(len(self.channels) if n % 4 == 0 else 1)]
            events = [
                Event("told", self.channels[(n + part) % len(self.channels)], {"id": identity})
                for part, identity in enumerate(ids)
            ]
            say(tried=ids, on=[event.channel for event in events])
            try:
                if len(events) == 1:
                    await self.manager.publish_event("told", events[0].channel, events[0].data)
                else:
                    await self.manager.publish_events(events)
            except BusUnavailable:
                say(refused=ids)
                await asyncio.sleep(0.05)
            except PublishUnknown:
                say(doubted=ids)
            else:
                say(accepted=ids)
            await asyncio.sleep(0.005)

    async def watch_health(self) -> None:
        connected = None
        while True:
            now = self.manager.health()["bus"]["connected"]
            if now != connected:
                say(connected=now)
                connected = now
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(Worker(json.loads(sys.argv[1])).run())
