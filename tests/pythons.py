"""The CPythons of this machine, which all run the same native module."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
VERSIONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
#: What the scripts import beside the package, all of it in Python alone.
MODULES = ["anyio", "exceptiongroup", "idna", "typing_extensions"]


def answers(python: str | Path, code: str, **environment: str) -> str:
    """What a Python prints; empty where it cannot."""
    command = [str(python), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def find(version: str) -> str | None:
    """A Python of this version: the one that runs the tests, one of pyenv's, or one on the path."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob(f"{version}.*/bin/python")
    for candidate in (sys.executable, *sorted(pyenv), shutil.which(f"python{version}")):
        if candidate and answers(candidate, "import sys; print('%d.%d' % sys.version_info[:2])") == version:
            return str(candidate)
    return None


FOUND = {version: python for version in VERSIONS if (python := find(version))}
MISSING = [f"no CPython {version} here: what is between us and a server is not tried on it" for version in VERSIONS
           if version not in FOUND]  # fmt: skip


@cache
def outcomes(version: str, script: str, modules: Path) -> dict[str, str]:
    """What became of a script's cases. `modules` is an empty folder for what it imports."""
    for name in MODULES:
        found = importlib.util.find_spec(name)
        if found is not None and found.origin is not None:
            origin = Path(found.origin)
            source = origin.parent if origin.name == "__init__.py" else origin
            (modules / source.name).symlink_to(source)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(modules)]), "PYTHONWARNINGS": "error"}
    command = [FOUND[version], str(ROOT / "tests" / "apps" / script)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told
