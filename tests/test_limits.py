import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fraiseql_subs import EventBusConfig, Limits

COUNTS = [field.name for field in dataclasses.fields(Limits) if str(field.type).startswith("int")]
SECONDS = [field.name for field in dataclasses.fields(Limits) if str(field.type).startswith("float")]
OPTIONAL = [field.name for field in dataclasses.fields(Limits) if str(field.type).endswith("None")]


def limits(name: str, value: Any) -> Limits:
    return Limits(**{"max_event_bytes": 1, name: value})


def test_every_event_can_be_sent():
    assert Limits(max_event_bytes=200, max_result_bytes=200).max_result_bytes == 200
    with pytest.raises(ValueError, match=r"^max_result_bytes: expected at least max_event_bytes \(200\), got 199$"):
        Limits(max_event_bytes=200, max_result_bytes=199)


def test_rust_knows_exactly_these_limits():
    source = Path(__file__).parents[1] / "rust/engine/src/limits.rs"
    structure = re.search(r"pub struct Limits \{(.*?)\n\}", source.read_text(), re.DOTALL)
    assert structure is not None
    names = re.findall(r"pub (\w+):", structure[1])
    assert names == list(json.loads(Limits()._json()))
    assert set(re.findall(r"pub (\w+): Option<", structure[1])) == set(OPTIONAL)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_ints_from_one_up(name: str):
    assert getattr(limits(name, 1), name) == 1
    for wrong, error in [
        (0, ValueError),
        (-1, ValueError),
        (2**63, ValueError),
        (1.5, TypeError),
        (True, TypeError),
        ("1", TypeError),
    ]:
        with pytest.raises(error, match=f"^{name}: expected an int"):
            limits(name, wrong)


@pytest.mark.parametrize("name", SECONDS)
def test_times_and_rates_are_finite_and_positive(name: str):
    assert getattr(limits(name, 0.5), name) == 0.5
    assert getattr(limits(name, 2), name) == 2
    for wrong, error in [
        (-1, ValueError),
        (float("inf"), ValueError),
        (float("nan"), ValueError),
        (True, TypeError),
        ("1", TypeError),
    ]:
        with pytest.raises(error, match=f"^{name}: expected a"):
            limits(name, wrong)
    if name == "drain_timeout":
        assert Limits(drain_timeout=0).drain_timeout == 0
    else:
        with pytest.raises(ValueError, match=f"^{name}: expected a finite number above 0"):
            limits(name, 0)


@pytest.mark.parametrize("name", [*COUNTS, *SECONDS, "overflow"])
def test_none_is_no_limit_for_some(name: str):
    if name in OPTIONAL:
        assert getattr(limits(name, None), name) is None
    else:
        with pytest.raises((TypeError, ValueError), match=f"^{name}: expected"):
            limits(name, None)


def test_overflow_is_one_of_four():
    for rule in ("disconnect", "drop_oldest", "drop_newest", "latest"):
        assert Limits(overflow=rule).overflow == rule
    with pytest.raises(ValueError, match=r"overflow: expected one of 'disconnect', .*, got 'block'"):
        Limits(overflow="block")  # type: ignore[arg-type]


def test_limits_are_keyword_only_and_frozen():
    with pytest.raises(TypeError):
        Limits(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Limits(max_conections=1)  # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().burst = 1  # type: ignore[misc]


def test_buses():
    assert EventBusConfig.memory() == EventBusConfig.memory(history=0)
    assert json.loads(EventBusConfig.memory(history=5)._json()) == {"memory": {"history": 5}}
    with pytest.raises(ValueError, match="history: expected an int from 0"):
        EventBusConfig.memory(history=-1)
    with pytest.raises(TypeError, match="history: expected an int"):
        EventBusConfig.memory(history=True)
    redis = EventBusConfig.redis("redis://:secret@localhost", consumer_group="a", history_age=1)
    postgresql = EventBusConfig.postgresql("postgresql://a:secret@localhost", listen_dsn=None, schema="a", install=True)
    assert (redis.kind, postgresql.kind) == ("redis", "postgresql")
    assert "secret" not in f"{redis!r} {postgresql!r} {redis} {postgresql}"
