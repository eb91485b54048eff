"""A TCP proxy between a manager and its server that can fail in every way in which networks do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from fraiseql_subs.servers import reserved_port

if TYPE_CHECKING:
    from typing_extensions import Self

Direction = Literal["requests", "replies"]
BOTH: tuple[Direction, ...] = ("requests", "replies")


class Proxy:
    """Forwards `port` to another port of this machine, and fails as it is told, in open connections and new ones.

    Attributes:
        port: Where it listens; its own also while it refuses.
        delay: Seconds by which everything is late, either way.
        connections: How many it has ever taken.
    """

    def __init__(self, target: int) -> None:
        self.delay = 0.0
        self.connections = 0
        self._target = target
        self._reserved = reserved_port()
        self.port: int = self._reserved.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], _Link] = {}
        self._flows = {direction: asyncio.Event() for direction in BOTH}
        self._reset_after: int | None = None

    async def __aenter__(self) -> Self:
        self.forward()
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.refuse()
        self._reserved.close()

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._links)

    def through(self, url: str) -> str:
        """A server's URL with this port instead of its own."""
        before, found, after = url.rpartition(f":{self._target}")
        assert found, url
        return f"{before}:{self.port}{after}"

    def lead_to(self, target: int) -> None:
        """New connections reach another port; those that are open stay where they are."""
        self._target = target

    # ---- how it fails ----

    def forward(self) -> None:
        """All is well again, for what is still open; what is silent ends."""
        self.delay, self._reset_after = 0.0, None
        for link in self._links.values():
            if link.silent:
                link.reset()
        for flow in self._flows.values():
            flow.set()

    def stall(self, directions: Iterable[Direction] = BOTH) -> None:
        """Connections are taken and kept, and nothing passes in these directions; in one alone: they are half-open."""
        for direction in directions:
            self._flows[direction].clear()

    def silence(self) -> None:
        """Nothing passes any more through what is open, for good; new connections are well."""
        for link in self._links.values():
            link.silent = True

    def cut(self) -> None:
        """Resets every open connection; new ones are taken."""
        for link in self._links.values():
            link.reset()

    def cut_in_reply(self, after: int) -> None:
        """Resets the next connection that has got so many more bytes of replies, in the middle of one."""
        self._reset_after = after

    async def refuse(self) -> None:
        """Resets every open connection and takes none."""
        if self._server:
            self._server.close()
            self._server = None
        self.cut()
        links = [*self._links]
        for link in links:
            link.cancel()
        if links:
            await asyncio.wait(links)

    async def accept(self) -> None:
        """Takes connections again."""
        assert self._server is None
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)

    # ---- how it forwards ----

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        link = self._links[task] = _Link(self, reader, writer)
        self.connections += 1
        try:
            await link.run(self._target)
        except asyncio.CancelledError:
            pass  # its server logs what is cancelled
        finally:
            del self._links[task]

    def allowance(self, size: int) -> int | None:
        """How many of so many bytes of replies pass before the connection is reset; `None`: all, and it is not."""
        if self._reset_after is None:
            return None
        if size < self._reset_after:
            self._reset_after -= size
            return None
        allowed, self._reset_after = self._reset_after, None
        return allowed

    async def gate(self, direction: Direction) -> None:
        await self._flows[direction].wait()


class Encrypted(Proxy):
    """With TLS towards its clients, which our servers' binaries do not speak; PostgreSQL's clients ask for it first."""

    _ASKS = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"

    def __init__(self, target: int, context: ssl.SSLContext, *, is_asked: bool) -> None:
        super().__init__(target)
        self._context = context
        self._is_asked = is_asked

    async def accept(self) -> None:
        listening = socket.create_server(("127.0.0.1", self.port))
        listening.setblocking(False)
        self._accepting = asyncio.create_task(self._serve(listening))

    async def refuse(self) -> None:
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        await super().refuse()

    async def _serve(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                sock, _ = await loop.sock_accept(listening)
                tasks.add(task := asyncio.create_task(self._encrypt(sock)))
                task.add_done_callback(tasks.discard)
        finally:
            listening.close()
            for task in tasks:
                task.cancel()

    async def _encrypt(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            if self._is_asked:
                if await loop.sock_recv(sock, 8) != self._ASKS:
                    raise ConnectionAbortedError
                await loop.sock_sendall(sock, b"S")
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=self._context)
        except OSError:
            sock.close()  # it does not like our certificate, or did not want any
            return
        await self._take(reader, asyncio.StreamWriter(transport, protocol, reader, loop))


class _Link:
    """One client's connection and the one to the server behind it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = reader, writer
        self._writers = [writer]
        self.silent = False

    async def run(self, target: int) -> None:
        reader, writer = self._client
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            return self.reset()
        self._writers.append(server_writer)
        pumps = [
            asyncio.ensure_future(self._pump("requests", reader, server_writer)),
            asyncio.ensure_future(self._pump("replies", server_reader, writer)),
        ]
        try:
            await asyncio.gather(*pumps)
        except OSError:
            self.reset()
        finally:
            for pump in pumps:
                pump.cancel()
            for one in self._writers:
                one.close()

    async def _pump(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        late: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(maxsize=64)

        async def read() -> None:
            chunk: bytes | None = b" "
            while chunk:
                try:
                    chunk = await reader.read(65_536)
                except OSError:
                    chunk = None
                await late.put((loop.time() + self._proxy.delay, chunk))

        reading = asyncio.ensure_future(read())
        try:
            while True:
                due, chunk = await late.get()
                await asyncio.sleep(due - loop.time() if due > loop.time() else 0)
                await self._proxy.gate(direction)
                if self.silent:
                    continue
                if chunk is None:
                    return self.reset()
                if not chunk:
                    if writer.can_write_eof():
                        writer.write_eof()
                        break
                    return writer.close()  # TLS ends both ways at once
                allowed = self._proxy.allowance(len(chunk)) if direction == "replies" else None
                writer.write(chunk[:allowed])
                await writer.drain()
                if allowed is not None:
                    # What has passed reaches the client before the reset does.
                    await asyncio.sleep(0.01)
                    return self.reset()
            await reading
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    def reset(self) -> None:
        """Ends both connections as a crash would: with RST, whatever is under way."""
        for writer in self._writers:
            transport = writer.transport
            if not transport.is_closing():
                sock = transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                transport.abort()
