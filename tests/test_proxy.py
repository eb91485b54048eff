"""The proxy fails as it is told to: what it is trusted with in other tests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator

import pytest
import trustme

from .proxy import BOTH, Encrypted, Proxy
from .support import soon


@contextlib.asynccontextmanager
async def through_a_proxy() -> AsyncIterator[tuple[Proxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server that says everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65_536):
                writer.write(chunk)
                heard.set()
        writer.close()

    heard = asyncio.Event()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        proxy.heard = heard  # type: ignore[attr-defined]
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        yield proxy, reader, writer
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def says_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes = b"hello") -> None:
    writer.write(text)
    assert await soon(reader.readexactly(len(text))) == text


async def is_silent(reader: asyncio.StreamReader) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)


async def test_it_forwards_and_tells_the_end():
    async with through_a_proxy() as (proxy, reader, writer):
        assert proxy.through(f"redis://:1@127.0.0.1:{proxy._target}/0") == f"redis://:1@127.0.0.1:{proxy.port}/0"
        await says_back(reader, writer, b"x" * 1_000_000)
        writer.write_eof()
        assert await soon(reader.read()) == b""


async def test_what_is_cut_is_reset_and_new_connections_are_taken():
    async with through_a_proxy() as (proxy, reader, writer):
        await says_back(reader, writer)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await soon(reader.read())
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await says_back(reader, writer)
        assert proxy.connections == 2
        writer.close()


async def test_a_server_that_resets_is_passed_on():
    async def crash(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server = await asyncio.start_server(crash, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await soon(reader.read())
        writer.close()
    server.close()
    await server.wait_closed()


async def test_it_refuses_and_takes_again_at_its_port():
    async with through_a_proxy() as (proxy, reader, writer):
        await proxy.refuse()
        with pytest.raises(ConnectionResetError):
            await soon(reader.read())
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
        await proxy.accept()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await says_back(reader, writer)
        writer.close()


@pytest.mark.parametrize(("directions", "arrives"), [(BOTH, False), (["replies"], True), (["requests"], False)])
async def test_a_stalled_direction_is_silent_and_loses_nothing(directions, arrives):
    async with through_a_proxy() as (proxy, reader, writer):
        await says_back(reader, writer)
        proxy.heard.clear()  # type: ignore[attr-defined]
        proxy.stall(directions)
        writer.write(b"later")
        await is_silent(reader)
        assert proxy.heard.is_set() == arrives  # type: ignore[attr-defined]
        proxy.forward()
        assert await soon(reader.readexactly(5)) == b"later"


async def test_what_is_silenced_stays_silent_and_new_connections_are_well():
    async with through_a_proxy() as (proxy, reader, writer):
        await says_back(reader, writer)
        proxy.silence()
        writer.write(b"never")
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await says_back(other_reader, other_writer)
        await is_silent(reader)
        assert proxy.open == 2
        proxy.forward()
        with pytest.raises(ConnectionResetError):
            await soon(reader.read())
        await says_back(other_reader, other_writer)
        other_writer.close()


async def test_everything_is_late_and_in_order():
    async with through_a_proxy() as (proxy, reader, writer):
        proxy.delay = 0.05
        before = time.perf_counter()
        for n in range(10):
            writer.write(b"%d" % n)
            await asyncio.sleep(0)
        assert await soon(reader.readexactly(10)) == b"0123456789"
        assert 0.1 <= time.perf_counter() - before < 0.5


async def test_a_reply_is_cut_in_its_middle():
    async with through_a_proxy() as (proxy, reader, writer):
        await says_back(reader, writer)
        proxy.cut_in_reply(7)
        await says_back(reader, writer, b"abc")
        writer.write(b"defghijkl")
        assert await soon(reader.readexactly(4)) == b"defg"
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await soon(reader.readexactly(1))


@pytest.mark.parametrize("is_asked", [False, True])
async def test_it_speaks_tls_towards_its_clients(is_asked):
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    async with through_a_proxy() as (plain, _reader, _writer):
        async with Encrypted(plain.port, server_side, is_asked=is_asked) as front:
            loop = asyncio.get_running_loop()
            sock = socket.create_connection(("127.0.0.1", front.port))
            sock.setblocking(False)
            if is_asked:
                await loop.sock_sendall(sock, Encrypted._ASKS)
                assert await soon(loop.sock_recv(sock, 2)) == b"S"
            reader, writer = await asyncio.open_connection(sock=sock, ssl=client_side, server_hostname="127.0.0.1")
            await says_back(reader, writer, b"x" * 500_000)
            writer.close()
            await writer.wait_closed()
