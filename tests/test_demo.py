"""The demo, as the README tells people to start it."""

import json
import subprocess
import sys


def test_check_receives_events_of_every_kind():
    command = [sys.executable, "-m", "fraiseql_subs", "demo", "--check"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=50, stdin=subprocess.DEVNULL)
    assert (run.returncode, run.stderr) == (0, "")
    events = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    counts = {
        kind: sum(kind in event for event in events) for kind in ("stockChanged", "orderUpdated", "messageReceived")
    }
    assert min(counts.values()) >= 3
    assert "/publish -H" in run.stdout
    assert all(event["messageReceived"]["seenBy"] == "ada" for event in events if "messageReceived" in event)
