"""`send` belongs to one task and one context of its connection, on every CPython that is there."""

from __future__ import annotations

import re

import pytest

from .pythons import FOUND, ROOT, outcomes

SCRIPT = "sending.py"
SOURCE = (ROOT / "tests" / "apps" / SCRIPT).read_text()
CASES = re.findall(r"@case\nasync def (\w+)", SOURCE)
SINCE_3_11 = re.findall(r"@since_3_11\nasync def (\w+)", SOURCE)


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    return {version: tmp_path_factory.mktemp("modules") for version in FOUND}


@pytest.mark.parametrize(
    ("version", "case"),
    [(version, case) for version in FOUND for case in CASES + (SINCE_3_11 if version != "3.10" else [])],
)
def test_what_stands_between_us_and_a_server(version, case, modules):
    assert outcomes(version, SCRIPT, modules[version])[case] == "passed"


def test_the_case_list_is_the_scripts(modules):
    version = max(FOUND)
    told = outcomes(version, SCRIPT, modules[version])
    assert [*told] == [*dict.fromkeys(re.findall(r"@(?:case|since_3_11)\nasync def (\w+)", SOURCE))]
    assert len(CASES) > 10
