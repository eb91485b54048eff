"""What tests share: servers as processes, and the rule that CI skips nothing."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fraiseql_subs.servers import reserved_port

from . import loops, pythons, servers
from .servers import postgres_server, redis_server, start_server, valkey_server

__all__ = ["postgres_server", "redis_server", "serve", "start_server", "valkey_server"]


if os.environ.get("LOOP") == "without-readers":
    asyncio.set_event_loop_policy(loops.Policy())


def pytest_report_header() -> list[str]:
    """What this Python cannot run; it is not collected."""
    return servers.MISSING + pythons.MISSING


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that skips itself fails where CI=true: what is needed there is known to be there."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


UVICORN = ("uvicorn", "{app}", "--host=127.0.0.1", "--port={port}", "--ws={ws}", "--no-access-log")
#: Command line by name.
SERVERS = {
    "uvicorn-websockets": [argument.replace("{ws}", "websockets") for argument in UVICORN],
    "uvicorn-websockets-sansio": [argument.replace("{ws}", "websockets-sansio") for argument in UVICORN],
    "uvicorn-wsproto": [argument.replace("{ws}", "wsproto") for argument in UVICORN],
    "hypercorn": ["hypercorn", "{app}", "--bind=127.0.0.1:{port}"],
    "granian": ["granian", "{app}", "--interface=asgi", "--host=127.0.0.1", "--port={port}"],
}
GUNICORN = ["gunicorn", "{app}", "--preload", "--worker-class=uvicorn_worker.UvicornWorker", "--bind=127.0.0.1:{port}"]
#: The same with several processes.
WORKERS = {
    "uvicorn": [*SERVERS["uvicorn-websockets-sansio"], "--workers={workers}"],
    "gunicorn-preload": [*GUNICORN, "--workers={workers}"],
    "granian": [*SERVERS["granian"], "--workers={workers}"],
}


ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
#: A process imports the package from where the tests do, installed or not.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, str], Any]]:
    """`load(directory, name)`: the module there, imported anew, and forgotten with the test."""
    loaded: list[str] = []

    def load(directory: Path, name: str) -> Any:
        monkeypatch.syspath_prepend(directory)
        module = importlib.import_module(name)
        loaded.append(name)
        return module

    yield load
    for name in loaded:
        del sys.modules[name]


class Server:
    """An ASGI application in a process of its own, on a port that stays its own over restarts."""

    def __init__(
        self, command: list[str], app: str, directory: Path, workers: int, environment: dict[str, str]
    ) -> None:
        self._reserved = reserved_port()
        self.port: int = self._reserved.getsockname()[1]
        self.output: list[str] = []
        self._command = [part.format(app=app, port=self.port, workers=workers) for part in command]
        self._directory = directory
        self._environment = {**ENVIRONMENT, **environment}

    def __str__(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Returns when it takes connections."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *self._command, cwd=self._directory, start_new_session=True, env=self._environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        while True:  # what servers print when, and who of their processes listens when, is their own affair
            assert not self._reading.done(), "".join(self.output)
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return await writer.wait_closed()

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            self.output.append(line.decode())

    @property
    def pid(self) -> int:
        """The process that was started; its workers are others."""
        return self._process.pid

    async def kill(self) -> None:
        """Ends all its processes as a crash of the machine would."""
        os.killpg(self._process.pid, signal.SIGKILL)  # its session is its own: its workers, and nothing else
        await self._process.wait()
        await self._reading

    async def stop(self) -> None:
        """Ends it as an operator would, and waits for its end."""
        self._process.send_signal(signal.SIGTERM)
        await self._process.wait()
        await self._reading

    async def close(self) -> None:
        """Leaves no process and no port behind, whatever the test came to."""
        self._reserved.close()
        if self._process.returncode is None:
            await self.kill()
        await self._reading


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """`await serve(name, app, directory)`: a started `Server`, ended with the test; `workers`: its processes."""
    servers: list[Server] = []

    async def start(name: str, app: str, directory: Path, *, workers: int = 0, **environment: str) -> Server:
        command = WORKERS[name] if workers else SERVERS[name]
        servers.append(Server(command, app, directory, workers, environment))
        await servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    """Lines from INFO up, or of another level, of our loggers that hold all of some parts."""
    caplog.set_level(logging.INFO, logger="fraiseql_subs")

    def lines(*parts: str, level: int | None = None) -> list[str]:
        records = [record for record in caplog.records if record.name.startswith("fraiseql_subs")]
        texts = [
            record.getMessage()
            for record in records
            if record.name != "fraiseql_subs.audit" and (level is None or record.levelno == level)
        ]
        return [text for text in texts if all(part in text for part in parts)]

    return lines
