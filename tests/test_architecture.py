"""Which room of the house uses which: read off every path of the Rust sources, and held against the list below."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

RUST = Path(__file__).parents[1] / "rust"

# The rooms, which are folders and the files beside `lib.rs`, the lowest first: each uses only what stands before it.
ENGINE = {
    "clock": "",
    "tasks": "",
    "limits": "",
    "value": "",
    "error": "value",
    "timers": "clock",
    "event": "value",
    "viewer": "value",
    "predicate": "value event viewer",
    "security": "value error event viewer predicate",
    "matching": "value error event predicate security",
    "graphql": "value error limits viewer predicate security matching",
    "admission": "error limits event viewer predicate security matching graphql",
    "accounts": "clock tasks limits viewer",
    "bus": "value event accounts",
    "operators": "clock value error event viewer predicate matching accounts bus",
    "delivery": "clock tasks timers limits value error event viewer matching graphql admission accounts bus operators",
    "parts": "clock limits event security matching graphql admission accounts bus operators",
    "engine": "timers value error event viewer security graphql admission accounts bus operators delivery parts",
    "sessions": (
        "clock tasks timers limits value error event viewer graphql accounts bus operators delivery parts engine"
    ),
}
BINDINGS = {
    "runtime": "",
    "wake": "runtime",
    "convert": "",
    "functions": "convert",
    "errors": "convert",
    "viewer": "",
    "trail": "wake",
    "admin": "runtime errors",
    "bus": "runtime errors",
    "run": "errors wake",
    "read": "convert functions",
    "reading": "runtime wake functions read",
    "calls": "runtime wake convert functions reading",
    "publishing": "runtime convert errors bus run",
    "socket": "runtime wake convert viewer run",
    "stream": "runtime wake errors run",
    "core": "runtime wake functions convert errors viewer trail bus run calls publishing socket stream",
}
# Circles of files inside a room, each with its reason in the room's `mod.rs`.
CIRCLES = {
    frozenset({"value/mod", "value/failure"}),
    frozenset({"predicate/mod", "predicate/compare", "predicate/constant", "predicate/describe", "predicate/set"}),
    frozenset({"graphql/schema", "graphql/coerce", "graphql/field", "graphql/access"}),
    frozenset({"graphql/plan", "graphql/reads"}),
    frozenset({"delivery/group", "delivery/class", "delivery/resolver", "delivery/reading"}),
    frozenset({"sessions/register", "sessions/connection/mod", "sessions/stream"}),
}
# Who hashes without a seed, and by which keys: addresses, our own numbers, or names of the schema and its author.
UNSEEDED = {
    "accounts/revocation": "numbers",
    "accounts/weights": "addresses",
    "delivery/class": "addresses",
    "delivery/group": "addresses",
    "delivery/topics": "addresses",
    "graphql/plan": "names of types",
    "graphql/planner": "addresses, names of types and fields",
    "graphql/reads": "addresses, names of types",
    "graphql/schema": "names of the schema",
    "graphql/sdl": "names of the schema",
    "predicate/mod": "an order of parts, no table",
}
COMMENT = re.compile(r"//[^\n]*")
NAME = re.compile(r"\w+")
TESTS = re.compile(r"^#\[cfg\(test\)\]\n.*", re.MULTILINE | re.DOTALL)


def leaves(tree: str) -> Iterator[list[str]]:
    """The paths of a tree of imports: `a::{b, c::d}` has two."""
    head, brace, rest = tree.partition("{")
    prefix = NAME.findall(head.rpartition("as ")[0] or head)
    if not brace:
        yield prefix
        return
    depth, part = 0, ""
    for letter in rest.rpartition("}")[0] + ",":
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            if part.strip():
                yield from ([*prefix, *leaf] for leaf in leaves(part.strip()))
            part = ""
        else:
            part += letter


def paths(source: str, root: str) -> Iterator[list[str]]:
    """Every path that begins with a name, in imports and elsewhere."""
    for found in re.finditer(rf"\b{root}::", source):
        rest = source[found.end() :]
        tree = rest.partition(";")[0] if re.search(r"\buse\s+$", source[: found.start()]) else ""
        yield from leaves(tree or re.match(r"[\w:]*", rest)[0])  # type: ignore[index]


def sources(crate: str) -> dict[str, str]:
    """The product's sources by path without suffix, comments and tests apart."""
    folder = RUST / crate / "src"
    files = [file for file in folder.rglob("*.rs") if file.name != "tests.rs"]
    assert len(files) > 10
    return {
        file.relative_to(folder).with_suffix("").as_posix(): TESTS.sub("", COMMENT.sub("", file.read_text()))
        for file in files
    }


def arrows(crate: str) -> dict[str, set[str]]:
    """What each room uses."""
    used: dict[str, set[str]] = {}
    for file, source in sources(crate).items():
        room = file.partition("/")[0]
        names = {path[0] for path in paths(source, "crate") if path}
        used.setdefault(room, set()).update(names - {room})
    return {room: names for room, names in used.items() if room != "lib"}


def test_a_room_uses_what_stands_before_it_and_nothing_else() -> None:
    for crate, allowed in [("engine", ENGINE), ("python", BINDINGS)]:
        found = arrows(crate)
        assert found.keys() == allowed.keys()
        before: set[str] = set()
        for room, names in allowed.items():
            assert set(names.split()) <= before, f"{room} stands before what it uses"
            before.add(room)
        assert {room: " ".join(sorted(names)) for room, names in found.items()} == {
            room: " ".join(sorted(names.split())) for room, names in allowed.items()
        }


def test_a_circle_of_files_inside_a_room_has_a_reason() -> None:
    files = sources("engine")
    uses: dict[str, set[str]] = {}
    for file, source in files.items():
        room, slash, _ = file.partition("/")
        if not slash:
            continue
        inside = [path for path in paths(source, "crate") if path[:1] == [room]]
        here = [[room, *path] for path in paths(source, "super")] if file.count("/") == 1 else []
        for path in (*inside, *here):
            names = "/".join(path[:2])
            other = names if names in files else f"{names}/mod" if f"{names}/mod" in files else f"{room}/mod"
            uses.setdefault(file, set()).add(other)
    assert uses
    circles = {frozenset(circle) for circle in strongly_connected(uses)}
    unknown = {circle for circle in circles if not any(circle <= known for known in CIRCLES)}
    assert not unknown


def strongly_connected(uses: dict[str, set[str]]) -> Iterator[set[str]]:
    """The circles of a graph: what leads to each other."""
    reach: dict[str, set[str]] = {}
    for start in uses:
        open_, seen = [start], set[str]()
        while open_:
            for other in uses.get(open_.pop(), set()) - seen:
                seen.add(other)
                open_.append(other)
        reach[start] = seen
    for start, seen in reach.items():
        circle = {other for other in seen if start in reach.get(other, set())}
        if len(circle) > 1:
            yield circle


def test_a_wrong_arrow_would_be_seen() -> None:
    tree = "use crate::{error::{self, code}, sessions::Stream as S}; fn f() { crate::engine::g() }"
    assert [path[0] for path in paths(tree, "crate")] == ["error", "error", "sessions", "engine"]
    assert {frozenset(circle) for circle in strongly_connected({"a": {"b"}, "b": {"a"}, "c": {"a"}})} == {
        frozenset({"a", "b"})
    }


def test_time_comes_by_the_clock_alone() -> None:
    """The servers of a bus have clocks of their own, and time-outs that are the machine's."""
    now = re.compile(r"\b(Instant|Utc|SystemTime)::now\b|\btokio::time\b")
    by_itself = {
        file
        for crate in ["engine", "python"]
        for file, source in sources(crate).items()
        if now.search(source) and not file.startswith("bus/")
    }
    assert by_itself == {"clock"}


def test_keys_that_others_choose_are_hashed_by_chance() -> None:
    """Who chooses texts can choose some that collide: a table without a seed needs a reason in the list."""
    unseeded = re.compile(r"\brustc_hash\b|\bFixedState\b|\bDefaultHasher::new\b|\bBuildHasherDefault\b")
    found = {
        file for crate in ["engine", "python"] for file, source in sources(crate).items() if unseeded.search(source)
    }
    assert found == UNSEEDED.keys()


def test_what_only_unix_has_stands_apart() -> None:
    """Elsewhere it is not compiled: in files of its own, or behind the word beside it."""
    unix = re.compile(r"\bos::(fd|unix)\b|\bUnix(Stream|Listener|Datagram)\b|\bsignal::unix\b|\b(libc|nix)::")
    guarded = re.compile(r"#\[cfg\(unix\)\]\n[^\n]*")
    modules = re.compile(r"#\[cfg\(unix\)\]\nmod (\w+);")
    apart: set[str] = set()
    for crate in ["engine", "python"]:
        for file, source in sources(crate).items():
            folder = file.removesuffix("/mod")
            apart.update(f"{crate}/{folder}/{name}" for name in modules.findall(source))
    assert apart == {"python/wake/descriptor"}
    found = {
        f"{crate}/{file}"
        for crate in ["engine", "python"]
        for file, source in sources(crate).items()
        if unix.search(guarded.sub("", source))
    }
    assert found == apart


def test_no_file_is_too_long() -> None:
    for crate in ["engine", "python"]:
        for file, source in sources(crate).items():
            lines = [line for line in source.splitlines() if line.strip()]
            assert len(lines) <= 500, file
