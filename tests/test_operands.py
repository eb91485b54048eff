"""An operand written in another language's way: the mistake is an AttributeError that says what to write."""

from __future__ import annotations

import copy
import inspect
import re
from typing import Any

import pytest

from fraiseql_subs import argument, data, previous, viewer

QUOTE = "['\"]"

#: What has the attribute, its name, and what the advice is.
MISTAKES: list[tuple[Any, str, str]] = [
    (data, "owner_id", 'data["owner_id"]'),
    (data["customer"], "id", 'data["customer"]["id"]'),
    (data["a"]["b"], "c", 'data["a"]["b"]["c"]'),
    (previous, "status", 'previous["status"]'),
    (previous["a"], "b", 'previous["a"]["b"]'),
    (argument("filter"), "status", 'argument("filter", "status")'),
    (argument("filter", "inner"), "id", 'argument("filter", "inner", "id")'),
    (viewer("claims"), "org", 'viewer("claims", "org")'),
    (viewer("claims", "org"), "id", 'viewer("claims", "org", "id")'),
    (viewer, "user_id", 'viewer("user_id")'),
    (viewer, "tenant_id", 'viewer("tenant_id")'),
    (viewer, "claims", 'viewer("claims"'),
    (argument, "order_id", 'argument("order_id")'),
]


@pytest.mark.parametrize(("owner", "name", "advice"), MISTAKES, ids=[advice for _, _, advice in MISTAKES])
def test_an_attribute_that_is_none_says_what_to_write(owner, name, advice):
    pattern = re.escape(advice).replace('"', QUOTE)
    with pytest.raises(AttributeError, match=pattern) as raised:
        getattr(owner, name)
    assert name in str(raised.value)
    assert not hasattr(owner, name)
    assert getattr(owner, name, 1) == 1


def test_an_unknown_field_of_the_viewer_is_answered_by_those_there_are():
    given: Any = viewer
    with pytest.raises(AttributeError, match="user_id, tenant_id"):
        given.nobody  # noqa: B018  # that is the point


@pytest.mark.parametrize(
    ("owner", "key", "advice"),
    [(viewer, "user_id", 'viewer("user_id")'), (argument, "order_id", 'argument("order_id")')],
)
def test_square_brackets_say_so_too(owner: Any, key: str, advice: str):
    with pytest.raises(TypeError, match=re.escape(advice).replace('"', QUOTE)):
        owner[key]


@pytest.mark.parametrize("operand", [data, data["a"], previous, argument("a"), viewer("claims")])
def test_what_python_asks_of_any_object_is_answered_as_ever(operand):
    """A control: protocols look for attributes, and must find none."""
    for name in ("__len__", "__array__", "__fspath__", "_repr_html_", "__wrapped__", "_a"):
        assert getattr(operand, name, None) is None
    for name in ("is_in", "contains", "startswith", "endswith", "exists", "is_null"):
        assert callable(getattr(operand, name))
    assert repr(copy.copy(operand)) == repr(operand)
    assert repr(copy.deepcopy(operand)) == repr(operand)


def test_functions_are_still_described():
    for function in (argument, viewer):
        assert list(inspect.signature(function).parameters) == ["name", "path"]
        assert inspect.getdoc(function)
        assert function.__name__ in ("argument", "viewer")
        assert callable(function)


def test_what_is_written_rightly_is_an_operand():
    """A control for all of the above."""
    assert repr(data["owner_id"]) == "data['owner_id']"
    assert repr(viewer("user_id")) == "viewer('user_id')"
    assert repr(argument("filter", "status")) == "argument('filter', 'status')"
