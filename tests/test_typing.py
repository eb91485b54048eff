"""What a reader pastes from the README is right for the type checkers that people use, at their strictest."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ENVIRONMENT, ROOT

SCREEN = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)[0]
#: A mistake that a checker finds only if it knows our types.
WRONG = SCREEN.replace("user_id=user_id", "user_id=[user_id]")


def by_mypy(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "screen.py"]
    environment = {**ENVIRONMENT, "MYPYPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def by_pyright(folder: Path) -> subprocess.CompletedProcess[str]:
    """basedpyright's wheel brings all of pyright along, node included; its own rules are left out."""
    settings = {"typeCheckingMode": "strict", "include": ["screen.py"], "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--project", str(folder)]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("check", [by_mypy, by_pyright])
def test_the_one_screen_passes_as_it_stands(check, tmp_path):
    assert WRONG != SCREEN
    (tmp_path / "screen.py").write_text(SCREEN, "utf-8")
    done = check(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "screen.py").write_text(WRONG, "utf-8")
    done = check(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "user_id" in done.stdout
