"""`manager.explain`: every stage, that a real subscribe and publish agree with it, and that it does nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from fraiseql_subs import (
    ALL_TENANTS,
    ID,
    JSON,
    Event,
    Forbidden,
    GraphQLRequestError,
    Info,
    Limits,
    Schema,
    SecurityContext,
    SubscriptionManager,
    argument,
    data,
    previous,
    requires,
    subscription,
    viewer,
)

from .support import audited, one, rest, within

CALLED: list[object] = []


@dataclass
class Item:
    n: int
    price: Annotated[float | None, requires("price")] = None
    cost: Annotated[float | None, requires("cost")] = None


@subscription(
    channel="items:{of}",
    event_types=["changed"],
    where=data["n"] >= argument("least"),
    rows=data["owner"] == viewer("user_id"),
    scope={"shop": viewer("claims", "shop")},
    sources=["web", "till"],
    requires=requires("items"),
)
async def item(event: Event, of: ID, shop: ID, least: int = 0) -> Item:
    CALLED.append(event)
    return Item(event.data["n"])


@subscription(channel="rise", where=data["n"] > previous["n"], passthrough=True)
def rise() -> JSON:
    raise NotImplementedError


@subscription
async def generated(info: Info) -> AsyncIterator[int]:
    CALLED.append(info)
    yield 1


QUERY = "subscription ($of: ID!, $shop: ID!) { item(of: $of, shop: $shop, least: 3) { n } }"
VARIABLES = {"of": 1, "shop": "s"}
CONTEXT: dict[str, Any] = {
    "user_id": 7,
    "tenant_id": "a",
    "permissions": ["items", "price"],
    "claims": {"shop": "s"},
    "sources": ["web", "app"],
}
EVENT: dict[str, Any] = {
    "event_type": "changed",
    "channel": "items:1",
    "data": {"n": 5, "owner": 7},
    "tenant_id": "a",
    "source": "web",
}


def manager_of(*, multi_tenant: bool = False, limits: Limits | None = None) -> SubscriptionManager:
    schema = Schema(subscriptions=[item, rise, generated])
    return SubscriptionManager(schema, limits=limits or Limits(), multi_tenant=multi_tenant)


#: What differs from a request and an event that are all right, the stage that decides, and what the reason says.
Row = tuple[str, dict[str, Any], list[str]]
ROWS: list[Row] = [
    ("delivered", {}, []),
    ("delivered", {"event": {"tenant_id": ALL_TENANTS}}, []),
    ("delivered", {"event": {"data": {"n": 3, "owner": "7"}}}, []),
    ("delivered", {"context": {"sources": None}, "event": {"source": "till"}}, []),
    ("delivered", {"context": {"expires_at": within(3600)}}, []),
    ("request", {"query": "subscription {"}, []),
    ("request", {"query": "subscription { nobody }"}, ["nobody"]),
    ("request", {"query": "{ __typename }"}, []),
    ("request", {"query": "{ _empty }"}, []),
    ("request", {"query": QUERY + " " * 65_536}, ["65536"]),
    ("request", {"variables": {"of": None, "shop": "s"}}, ["of"]),
    ("request", {"variables": {"of": "a\n", "shop": "s"}}, ["'of'", "control characters"]),
    ("channel", {"variables": {"of": "1:", "shop": "s"}}, ["items:1%3A", "items:1"]),
    ("request", {"operation_name": "Another"}, ["Another"]),
    ("request", {"query": "subscription { generated }", "context": {"sources": None}}, ["generator"]),
    ("forbidden", {"context": {"permissions": []}}, ["Subscription.item", "items"]),
    ("forbidden", {"variables": {"of": 1, "shop": "t"}}, ["shop", '"t"', '"s"']),
    ("forbidden", {"context": {"claims": {}}}, ["shop", '"s"', "claims.shop", "missing"]),
    ("forbidden", {"context": {"sources": []}}, ["source"]),
    ("forbidden", {"context": {"sources": ["app"]}}, ["source"]),
    ("forbidden", {"context": {"expires_at": within(-1)}}, ["expired"]),
    ("forbidden", {"query": "subscription { generated }"}, ["source"]),
    ("tenant", {"event": {"tenant_id": "b"}}, ['"b"', '"a"']),
    ("tenant", {"event": {"tenant_id": None}}, ["none", '"a"']),
    ("tenant", {"context": {"tenant_id": None}}, ['"a"', "none"]),
    ("tenant", {"context": {"tenant_id": ""}}, ['"a"', '""']),
    ("channel", {"event": {"channel": "items:2"}}, ["items:2", "items:1"]),
    ("channel", {"variables": {"of": 2, "shop": "s"}}, ["items:2", "items:1"]),
    ("event_type", {"event": {"event_type": "removed"}}, ["removed", "changed"]),
    ("sources", {"event": {"source": "till"}}, ["till", "web"]),
    ("sources", {"event": {"source": "app"}}, ["app", "web"]),
    ("sources", {"event": {"source": None}}, ["none", "web"]),
    ("where", {"event": {"data": {"n": 2, "owner": 7}}}, ['data["n"]', "is 2", 'argument("least")', "is 3"]),
    ("where", {"event": {"data": {"n": None, "owner": 7}}}, ['data["n"]', "is null", 'argument("least")', "is 3"]),
    ("where", {"event": {"data": {"owner": 7}}}, ['data["n"]', "is missing", 'argument("least")', "is 3"]),
    ("rows", {"event": {"data": {"n": 5, "owner": 8}}}, ['data["owner"]', "is 8", 'viewer("user_id")', 'is "7"']),
    ("rows", {"event": {"data": {"n": 5}}}, ['data["owner"]', "is missing", 'viewer("user_id")', 'is "7"']),
    ("rows", {"context": {"user_id": None}}, ['data["owner"]', "is 7", 'viewer("user_id")', "is null"]),
]


def asked(change: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is subscribed for, and what is published."""
    request = {
        "query": change.get("query", QUERY),
        "variables": change.get("variables", VARIABLES),
        "operation_name": change.get("operation_name"),
        "context": SecurityContext(**{**CONTEXT, **change.get("context", {})}),
    }
    return request, {**EVENT, **change.get("event", {})}


def explained(manager: SubscriptionManager, change: dict[str, Any]) -> Any:
    request, event = asked(change)
    given = Event(
        event["event_type"], event["channel"], event["data"], **{k: event[k] for k in ("tenant_id", "source")}
    )
    return manager.explain(request.pop("query"), given, **request)


async def reached(manager: SubscriptionManager, change: dict[str, Any], expected: bool) -> bool | str:
    """Whether a real event reaches a real subscription, as expected; why not, where there is none."""
    request, event = asked(change)
    async with manager:
        stream = manager.subscribe(request.pop("query"), **request)
        try:
            await stream.__aenter__()
        except GraphQLRequestError:
            return "request"
        except Forbidden:
            return "forbidden"
        await manager.publish_event(**event)
        if change.get("query") == "subscription { generated }":
            await one(stream)
            return "request"
        if expected:
            assert await one(stream) == {"data": {"item": {"n": event["data"]["n"]}}}
        assert await manager.complete_subscription(stream.id)
        assert await rest(stream) == []
        return len(CALLED) == 1


@pytest.mark.parametrize(("stage", "change", "reasons"), ROWS)
async def test_it_names_the_stage_and_a_real_subscribe_and_publish_agree(stage, change, reasons):
    manager = manager_of()
    CALLED.clear()
    with audited() as trail:
        explanation = explained(manager, change)
        await trail.has()
    assert (explanation.stage, explanation.delivered) == (stage, stage == "delivered")
    assert all(reason in explanation.reason for reason in reasons), explanation.reason
    assert explanation.reason
    assert explanation.masked == ()
    # A dry run: no function, no event, no count.
    assert CALLED == []
    assert manager.get_metrics() == manager_of().get_metrics()

    delivered = stage == "delivered"
    assert await reached(manager, change, delivered) == (stage if stage in ("request", "forbidden") else delivered)
    # Entered or not, before or after, it is the same.
    async with manager:
        before = manager.get_metrics()
        assert explained(manager, change) == explanation
        assert manager.get_metrics() == before


ORDER: list[tuple[str, dict[str, Any]]] = [
    ("tenant", {"tenant_id": "b"}),
    ("channel", {"channel": "items:2"}),
    ("event_type", {"event_type": "removed"}),
    ("sources", {"source": "app"}),
    ("where", {"data": {"n": 2, "owner": 7}}),
    ("rows", {"data": {"n": 5, "owner": 8}}),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_of_several_stages_that_say_no_the_first_decides(first):
    event: dict[str, Any] = {}
    for _, change in ORDER[first:]:
        event |= change
    if first < 5:
        event["data"] = {"n": 2, "owner": 8}
    assert explained(manager_of(), {"event": event}).stage == ORDER[first][0]
    # And before the event, the request and then the viewer.
    changes = {"event": event, "context": {"permissions": []}}
    assert explained(manager_of(), changes).stage == "forbidden"
    assert explained(manager_of(), {**changes, "query": "subscription { nobody }"}).stage == "request"


def test_several_tenants_need_one_each():
    manager = manager_of(multi_tenant=True)
    assert explained(manager, {}).stage == "delivered"
    assert explained(manager, {"event": {"tenant_id": ALL_TENANTS}}).stage == "delivered"
    for tenant in (None, ""):
        assert explained(manager, {"event": {"tenant_id": tenant}}).stage == "tenant"
        refused = explained(manager, {"context": {"tenant_id": tenant}})
        assert (refused.stage, refused.delivered) == ("forbidden", False)
        assert "tenant" in refused.reason
        # Even where both are without.
        both = {"event": {"tenant_id": tenant}, "context": {"tenant_id": tenant}}
        assert explained(manager, both).stage == "forbidden"
        assert explained(manager_of(), both).stage == "delivered"


async def test_it_names_what_is_nulled_by_permission():
    query = QUERY.replace("{ n }", "{ n a: price ...F } } fragment F on Item { cost").replace("} }", "} }", 1)
    change = {"query": query, "context": {"permissions": ["items"]}}
    manager = manager_of()
    explanation = explained(manager, change)
    assert (explanation.stage, sorted(explanation.masked)) == ("delivered", ["Item.cost", "Item.price"])
    with_price = explained(manager, {"query": query})
    assert (with_price.stage, with_price.masked) == ("delivered", ("Item.cost",))
    # It says so of what is not delivered, too.
    held_back = explained(manager, {**change, "event": {"data": {"n": 5, "owner": 8}}})
    assert (held_back.stage, len(held_back.masked)) == ("rows", 2)
    async with manager:
        request, event = asked(change)
        async with manager.subscribe(request.pop("query"), **request) as stream:
            await manager.publish_event(**event)
            payload = await one(stream)
            assert payload["data"] == {"item": {"n": 5, "a": None, "cost": None}}
            assert [error["extensions"]["code"] for error in payload["errors"]] == ["FORBIDDEN"] * 2


def test_the_old_image_is_one_of_its_arguments():
    manager = manager_of()

    def stage(previous: Any) -> tuple[str, str]:
        explanation = manager.explain("subscription { rise }", Event("x", "rise", {"n": 2}), previous=previous)
        return explanation.stage, explanation.reason

    assert stage({"n": 1})[0] == stage(b'{"n": 1}')[0] == stage('{"n": 1.5}')[0] == "delivered"
    for old, shown in (({"n": 2}, 'previous["n"] is 2'), ({}, 'previous["n"] is missing'), (None, "missing")):
        where, reason = stage(old)
        assert where == "where"
        assert shown in reason


def test_a_value_in_a_reason_is_cut_and_on_one_line():
    long = explained(manager_of(), {"event": {"data": {"n": "x\n" * 10_000, "owner": 7}}})
    assert long.stage == "where"
    assert len(long.reason) < 2_000
    assert len(long.reason.splitlines()) == 1


def test_an_explanation_is_frozen():
    explanation = explained(manager_of(), {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        explanation.delivered = False
    assert {field.name for field in dataclasses.fields(explanation)} == {"delivered", "stage", "reason", "masked"}


BAD: list[dict[str, Any]] = [
    {"data": {"n": float("nan")}},
    {"data": {"n": object()}},
    {"data": {"n": "\0"}},
    {"data": {1: 2}},
    {"data": [1]},
    {"data": "["},
    {"data": {"n": "x" * 1_000}},
    {"event_type": 1},
    {"event_type": ""},
    {"event_type": "\0"},
    {"channel": ""},
    {"channel": None},
    {"source": 1},
    {"source": "\ud800"},
]


@pytest.mark.parametrize("bad", BAD)
async def test_an_invalid_event_raises_as_publish_does(bad):
    manager = manager_of(limits=Limits(max_event_bytes=900))
    event = {**EVENT, **bad}
    async with manager:
        with pytest.raises((TypeError, ValueError)) as published:
            await manager.publish_event(**event)
    given = Event(event["event_type"], event["channel"], event["data"], source=event["source"])
    for query in (QUERY, "subscription { nobody }"):
        with pytest.raises(type(published.value)) as raised:
            manager.explain(query, given, variables=VARIABLES, context=SecurityContext(**CONTEXT))
        assert str(raised.value) == str(published.value)


@pytest.mark.parametrize("bad", [[1], "[", {"n": float("inf")}, {"n": "x" * 1_000}])
async def test_so_does_an_invalid_old_image(bad):
    manager = manager_of(limits=Limits(max_event_bytes=900))
    async with manager:
        with pytest.raises((TypeError, ValueError)) as published:
            await manager.publish_event("x", "rise", {"n": 2}, previous=bad)
    with pytest.raises(type(published.value)) as raised:
        manager.explain("subscription { rise }", Event("x", "rise", {"n": 2}), previous=bad)
    assert str(raised.value) == str(published.value)


@pytest.mark.parametrize(
    "given",
    [
        {"context": {"user_id": 1}},
        {"context": "admin"},
        {"variables": [1]},
        {"variables": {"of": object()}},
        {"operation_name": 1},
    ],
)
def test_ill_typed_arguments_raise(given):
    manager = manager_of()
    event = Event("x", "rise", {"n": 2})
    assert manager.explain("subscription { rise }", event, previous={"n": 1}).delivered
    with pytest.raises((TypeError, ValueError)):
        manager.explain("subscription { rise }", event, **given)
    with pytest.raises((TypeError, AttributeError)):
        manager.explain("subscription { rise }", json.dumps({"n": 2}))  # type: ignore[arg-type]
