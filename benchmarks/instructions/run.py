"""Counts the instructions of the engine's fixed cases under valgrind, and compares them with what is recorded.

python3 benchmarks/instructions/run.py [--record] [--most PERCENT] [CASE ...]

A count is the instructions of one operation. Unlike a time, it does not depend on what else the machine is doing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "benchmarks" / "instructions.tsv"
PACKAGE = "fraiseql-subs-instructions"
#: The function in which instructions are counted.
MEASURED = "*::measured*"


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the engine's instructions and compare them with the record.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="count these cases only")
    parser.add_argument("--record", action="store_true", help="count every case and write the record anew")
    parser.add_argument(
        "--most", type=float, default=1.0, metavar="PERCENT", help="fail where a case is worse by more than this (1)"
    )
    arguments = parser.parse_args()
    if arguments.record and arguments.cases:
        parser.error("--record takes no cases: one record has one machine, one compiler and one date")
    if shutil.which("valgrind") is None:
        print("This needs valgrind: `apt-get install valgrind`, or use your package manager.", file=sys.stderr)
        return 1
    program = build()
    cases = {name: int(counted) for name, counted in rows(output(str(program)))}
    unknown = [name for name in arguments.cases if name not in cases]
    if unknown:
        parser.error(f"expected cases among {', '.join(cases)}; got {', '.join(unknown)}")
    recorded: dict[str, int] = {}
    if RECORDED.exists() and not arguments.record:
        text = RECORDED.read_text()
        recorded = {name: int(count) for name, count in rows(text)}
        tell_compilers(text)
    print(f"{'case':34}{'recorded':>12}{'now':>12}{'ratio':>8}", flush=True)
    now: dict[str, int] = {}
    worse: list[str] = []
    for name in arguments.cases or cases:
        now[name] = count(program, name, cases[name])
        before = recorded.get(name)
        ratio = f"{now[name] / before:.3f}" if before else ""
        print(f"{name:34}{before or '':>12}{now[name]:>12}{ratio:>8}", flush=True)
        if before and now[name] > before * (1 + arguments.most / 100):
            worse.append(name)
    if arguments.record:
        record(now)
        return 0
    if not arguments.cases and recorded.keys() - now.keys():
        print(f"Recorded, but no longer a case: {', '.join(sorted(recorded.keys() - now.keys()))}")
    if worse:
        print(f"Worse by more than {arguments.most:g} %: {', '.join(worse)}")
    return 1 if worse else 0


def build() -> Path:
    """Builds the program and says where it is."""
    command = ["cargo", "build", "--locked", "--package", PACKAGE, "--profile", "instructions"]
    messages = output(*command, "--message-format", "json-render-diagnostics").splitlines()
    executables = [json.loads(message).get("executable") for message in messages]
    return Path(next(executable for executable in executables if executable))


def count(program: Path, case: str, operations: int) -> int:
    """Runs a case under callgrind: the instructions of one operation."""
    # Kept, for callgrind_annotate.
    profile = program.parent / "callgrind" / f"{case}.out"
    profile.parent.mkdir(exist_ok=True)
    output(
        *("valgrind", "--tool=callgrind", "--quiet", "--collect-atstart=no", f"--toggle-collect={MEASURED}"),
        *(f"--callgrind-out-file={profile}", str(program), case),
    )
    total = re.search(r"^(?:summary|totals): (\d+)$", profile.read_text(), re.MULTILINE)
    if total is None or int(total[1]) == 0:
        raise SystemExit(f"callgrind counted nothing in {case}: is there a function {MEASURED} in {program}?")
    return round(int(total[1]) / operations)


def record(counts: dict[str, int]) -> None:
    """Writes the file that later runs are compared with."""
    date = datetime.datetime.now(datetime.timezone.utc).date()
    libc, valgrind = " ".join(platform.libc_ver()), output("valgrind", "--version").strip()
    lines = [
        "# Instructions of one operation, by case; benchmarks/instructions/src/main.rs has the cases.",
        f"# {date}, {platform.system()} {platform.machine()}, {processor()}, {libc}, {valgrind}",
        f"# {compiler()}",
        "# python3 benchmarks/instructions/run.py --record",
        *(f"{name}\t{count}" for name, count in counts.items()),
    ]
    RECORDED.write_text("\n".join(lines) + "\n")
    print(f"Written to {RECORDED.relative_to(ROOT)}.")


def tell_compilers(recorded: str) -> None:
    """Says that a difference may be the compiler's."""
    if f"# {compiler()}" not in recorded.splitlines():
        print(f"The record was made by another compiler than {compiler()}: differences may come from there.")


def compiler() -> str:
    return output("rustc", "--version").strip()


def processor() -> str:
    """The name of the processor, where the system tells."""
    information = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*: (.+)$", information.read_text() if information.exists() else "", re.MULTILINE)
    return name[1] if name else platform.processor() or "processor unknown"


def rows(text: str) -> list[list[str]]:
    """The rows of tab-separated text, without comments."""
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]


def output(*command: str) -> str:
    """What a command prints. Its errors go to ours; it ends this program where it fails."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
