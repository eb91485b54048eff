"""Opens many connections to `benchmarks.app`, each with one subscription that hears of nothing, and holds them.

    python -m benchmarks.holder PORT CONNECTIONS [--expire SECONDS]

Each is a user of its own, `x0` and on. With `--expire` all of them expire within one second, which begins that many
seconds from now. It says `ready` when all are acknowledged, and at the end with which codes they were closed; it ends
when all are closed, or with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import struct
import sys
import time
from collections import Counter

#: Connections that are opened at once.
AT_ONCE = 50


def frame(message: object) -> bytes:
    """A masked text frame; the mask is nothing, so that the text is itself."""
    payload = json.dumps(message).encode()
    return b"\x81" + struct.pack("!BH", 0x80 | 126, len(payload)) + b"\0\0\0\0" + payload


async def hold(
    port: int, user: str, expires_at: float | None, opening: asyncio.Semaphore, ready: asyncio.Queue[None]
) -> int:
    """Opens a connection and reads until it is closed; returns the code."""
    async with opening:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(
            b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame({"type": "connection_init", "payload": {"user": user, "expires_at": expires_at}}))
        query = 'subscription { userUpdated(id: "nobody") { id } }'
        writer.write(frame({"id": "1", "type": "subscribe", "payload": {"query": query}}))
        writer.write(frame({"type": "ping"}))
        while b'"pong"' not in await message(reader):
            pass
        ready.put_nowait(None)
    try:
        while True:
            received = await message(reader)
            if received[:1] == b"\x88":
                return int.from_bytes(received[1:3], "big")
            if b'"ping"' in received:
                writer.write(frame({"type": "pong"}))
    except (asyncio.IncompleteReadError, ConnectionError):
        return 1006
    finally:
        writer.close()


async def message(reader: asyncio.StreamReader) -> bytes:
    """The kind of a frame and its payload."""
    kind, length = await reader.readexactly(2)
    if length == 126:
        length = int.from_bytes(await reader.readexactly(2), "big")
    return bytes([kind]) + await reader.readexactly(length)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("--expire", type=float)
    options = parser.parse_args()
    end = None if options.expire is None else time.time() + options.expire
    opening: asyncio.Semaphore = asyncio.Semaphore(AT_ONCE)
    ready: asyncio.Queue[None] = asyncio.Queue()
    held = [
        asyncio.create_task(
            hold(options.port, f"x{n}", None if end is None else end + n / options.connections, opening, ready)
        )
        for n in range(options.connections)
    ]
    for _ in held:
        await ready.get()
    print("ready", round(0 if end is None else end - time.time(), 1), flush=True)
    over = asyncio.gather(*held)
    loop = asyncio.get_running_loop()
    told = loop.create_future()

    def read() -> None:
        if not os.read(sys.stdin.fileno(), 1024) and not told.done():
            told.set_result(None)

    loop.add_reader(sys.stdin, read)
    done, _ = await asyncio.wait([over, told], return_when=asyncio.FIRST_COMPLETED)
    if over in done:
        late = 0 if end is None else time.time() - end - 1
        print(dict(Counter(over.result())), "the last one", round(late, 2), "s after its time", flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
