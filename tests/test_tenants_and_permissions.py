"""Who sees what: tenants by routing, rows by event, permissions at subscribe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any
from uuid import UUID

import pytest

from fraiseql_subs import (
    ALL_TENANTS,
    ID,
    Event,
    Forbidden,
    GraphQLRequestError,
    Info,
    Schema,
    SchemaError,
    SecurityContext,
    data,
    requires,
    requires_any,
    subscription,
    viewer,
)

from .support import manager_of, nonzero, one, take


@dataclass
class Plain:
    n: int


@subscription(channel="c", passthrough=True)
def raw() -> Plain:
    raise NotImplementedError


@subscription(channel="c")
async def tenant_seen(event: Event) -> str:
    return repr(event.tenant_id)


RAW = "subscription { raw { n } }"


# ---- tenants ----

SOME_ID = UUID("C0FFEE00-0000-4000-8000-000000000001")
TENANTS: list[Any] = [None, "", "a", "A", "1", "None", "ALL_TENANTS", str(SOME_ID)]


async def test_tenants_must_always_be_equal():
    manager = manager_of(raw)
    async with manager:
        streams = [manager.subscribe(RAW, context=SecurityContext(tenant_id=tenant)) for tenant in TENANTS]
        for stream in streams:
            await stream.__aenter__()
        for n, tenant in enumerate(TENANTS):
            await manager.publish_event("x", "c", {"n": n}, tenant_id=tenant)
        await manager.publish_event("x", "c", {"n": 99}, tenant_id=ALL_TENANTS)
        for n, stream in enumerate(streams):
            assert await take(stream, 2) == [{"data": {"raw": {"n": n}}}, {"data": {"raw": {"n": 99}}}]
            await stream.aclose()


@pytest.mark.parametrize(
    ("viewers", "events"), [(1, "1"), ("1", 1), (SOME_ID, str(SOME_ID)), (str(SOME_ID), SOME_ID), (1, 1)]
)
async def test_tenant_ids_are_equal_as_text(viewers, events):
    manager = manager_of(raw)
    async with manager, manager.subscribe(RAW, context=SecurityContext(tenant_id=viewers)) as stream:
        await manager.publish_event("x", "c", {"n": 0}, tenant_id=str(SOME_ID).upper())
        await manager.publish_event("x", "c", {"n": 1}, tenant_id=events)
        assert await one(stream) == {"data": {"raw": {"n": 1}}}


async def test_functions_see_the_events_tenant_and_none_for_all():
    manager = manager_of(tenant_seen)
    query = "subscription { tenantSeen }"
    async with (
        manager,
        manager.subscribe(query, context=SecurityContext(tenant_id=7)) as seven,
        manager.subscribe(query) as none,
    ):
        await manager.publish_event("x", "c", {}, tenant_id=7)
        await manager.publish_event("x", "c", {})
        await manager.publish_event("x", "c", {}, tenant_id=ALL_TENANTS)
        assert [payload["data"]["tenantSeen"] for payload in await take(seven, 2)] == ["'7'", "None"]
        assert [payload["data"]["tenantSeen"] for payload in await take(none, 2)] == ["None", "None"]


async def test_a_function_is_called_for_each_tenant_never_across():
    calls: list[tuple[Any, Any]] = []

    @subscription(channel="c")
    async def who(event: Event, info: Info) -> int:
        calls.append((event.tenant_id, info.viewer.tenant_id))
        return 1

    manager = manager_of(who)
    async with (
        manager,
        manager.subscribe("subscription { who }", context=SecurityContext(tenant_id="a")) as a,
        manager.subscribe("subscription { who }", context=SecurityContext(tenant_id="b")) as b,
    ):
        await manager.publish_event("x", "c", {}, tenant_id="a")
        await manager.publish_event("x", "c", {}, tenant_id="b")
        assert await one(a) == await one(b) == {"data": {"who": 1}}
    assert sorted(calls) == [("a", "a"), ("b", "b")]


# ---- multi_tenant ----


async def test_multi_tenant_refuses_events_and_viewers_without_tenant():
    manager = manager_of(raw, multi_tenant=True)
    async with manager, manager.subscribe(RAW, context=SecurityContext(tenant_id="a")) as stream:
        for tenant in (None, ""):
            with pytest.raises(ValueError, match="tenant"):
                await manager.publish_event("x", "c", {"n": 0}, tenant_id=tenant)
            with pytest.raises(ValueError, match="tenant"):
                await manager.publish_events(
                    [Event("x", "c", {"n": 0}, tenant_id="a"), Event("x", "c", {"n": 0}, tenant_id=tenant)]
                )
            with pytest.raises(Forbidden):
                async with manager.subscribe(RAW, context=SecurityContext(user_id=1, tenant_id=tenant)):
                    pass
        with pytest.raises(Forbidden):
            async with manager.subscribe(RAW):
                pass
        assert manager.get_metrics()["events_published"] == 0
        await manager.publish_event("x", "c", {"n": 1}, tenant_id="a")
        await manager.publish_event("x", "c", {"n": 2}, tenant_id=ALL_TENANTS)
        assert await take(stream, 2) == [{"data": {"raw": {"n": n}}} for n in (1, 2)]
        assert nonzero(manager, "violations") == {"tenant": 3}


# ---- rows ----


@subscription(channel="c", passthrough=True, rows=data["owner"] == viewer("user_id"))
def mine() -> Plain:
    raise NotImplementedError


MINE = "subscription { mine { n } }"


async def test_rows_must_be_true():
    manager = manager_of(mine)
    async with (
        manager,
        manager.subscribe(MINE, context=SecurityContext(user_id=1)) as one_stream,
        manager.subscribe(MINE, context=SecurityContext(user_id="2")) as two_stream,
        manager.subscribe(MINE) as nobody,
    ):
        for n, owner in enumerate([1, "1", 2, None, "", [1], 1.0]):
            await manager.publish_event("x", "c", {"n": n, "owner": owner})
        await manager.publish_event("x", "c", {"n": 50})
        await manager.publish_event("x", "c", {"n": 98, "owner": 1})
        await manager.publish_event("x", "c", {"n": 99, "owner": 2})
        assert await take(one_stream, 3) == [{"data": {"mine": {"n": n}}} for n in (0, 1, 98)]
        assert await take(two_stream, 2) == [{"data": {"mine": {"n": n}}} for n in (2, 99)]
        assert await manager.complete_subscription(nobody.id)
        assert [message async for message in nobody] == []


async def test_rows_judge_the_new_image():
    @subscription(channel="c", passthrough=True, rows=data["owner"] == viewer("user_id"))
    def now() -> Plain:
        raise NotImplementedError

    manager = manager_of(now)
    async with manager, manager.subscribe("subscription { now { n } }", context=SecurityContext(user_id=1)) as stream:
        await manager.publish_event("x", "c", {"n": 0, "owner": 2}, previous={"owner": 1})
        await manager.publish_event("x", "c", {"n": 1, "owner": 1}, previous={"owner": 2})
        assert await one(stream) == {"data": {"now": {"n": 1}}}


async def test_a_row_rule_that_had_to_be_evaluated_is_counted():
    @subscription(channel="c", passthrough=True, rows=data["level"] <= viewer("claims", "level"))
    def cleared() -> Plain:
        raise NotImplementedError

    manager = manager_of(cleared)
    context = SecurityContext(claims={"level": 5})
    async with manager, manager.subscribe("subscription { cleared { n } }", context=context) as stream:
        for level in (6, None, "5", 5):
            await manager.publish_event("x", "c", {"n": 1, "level": level})
        assert await one(stream) == {"data": {"cleared": {"n": 1}}}
        assert nonzero(manager, "events_filtered") == {"rows": 3}


# ---- permissions on root fields ----


@subscription(channel="c", passthrough=True, requires=requires("a", "b"))
def needs_all() -> Plain:
    raise NotImplementedError


@subscription(channel="c", passthrough=True, requires=requires_any("a", "b"))
def needs_one() -> Plain:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("query", "permissions", "allowed"),
    [
        ("needsAll", ["a", "b"], True),
        ("needsAll", ["a", "b", "c"], True),
        ("needsAll", ["a"], False),
        ("needsAll", [], False),
        ("needsAll", ["A", "B"], False),
        ("needsAll", ["a b"], False),
        ("needsAll", ["*"], False),
        ("needsOne", ["b"], True),
        ("needsOne", ["a", "c"], True),
        ("needsOne", ["c"], False),
        ("needsOne", ["a "], False),
        ("needsOne", [], False),
    ],
)
async def test_a_root_field_needs_its_permissions(query, permissions, allowed):
    manager = manager_of(needs_all, needs_one)
    context = SecurityContext(permissions=permissions, roles=["a", "b"])
    for document in (
        f"subscription {{ {query} {{ n }} }}",
        f"subscription {{ other: {query} {{ n }} }}",
        f"subscription {{ ...F }} fragment F on Subscription {{ ... on Subscription {{ {query} {{ n }} }} }}",
    ):
        async with manager:
            before = nonzero(manager, "violations").get("fields", 0)
            if allowed:
                async with manager.subscribe(document, context=context) as stream:
                    await manager.publish_event("x", "c", {"n": 1})
                    assert list((await one(stream))["data"].values()) == [{"n": 1}]
                assert nonzero(manager, "violations").get("fields", 0) == before
            else:
                with pytest.raises(Forbidden, match=r"^Forbidden$"):
                    async with manager.subscribe(document, context=context):
                        pass
                assert nonzero(manager, "violations") == {"fields": before + 1}


async def test_who_may_not_subscribe_learns_nothing_of_the_arguments():
    @subscription(channel="c:{id}", passthrough=True, requires=requires("a"))
    def guarded(id: ID) -> Plain:
        raise NotImplementedError

    manager = manager_of(guarded)
    async with manager:
        with pytest.raises(Forbidden):
            async with manager.subscribe("subscription ($id: ID!) { guarded(id: $id) { n } }", variables={}):
                pass


# ---- permissions on fields of types ----


@dataclass
class Secret:
    id: ID
    hidden: Annotated[str | None, requires("see")] = None
    strict: Annotated[str, requires("see")] = "s"
    either: Annotated[int | None, requires_any("see", "count")] = None
    children: list[Secret] = field(default_factory=list)
    several: Annotated[list[int] | None, requires("see")] = None


@subscription(channel="c")
async def secret(event: Event) -> Secret | None:
    return event.data["secret"]


@subscription(channel="c", passthrough=True)
def native() -> Holder:
    raise NotImplementedError


@dataclass
class Holder:
    secret: Secret | None


BODY = {"id": "1", "hidden": "h", "strict": "s", "either": 1, "children": [{"id": "2", "hidden": "h2"}], "several": [1]}


def forbidden(line_column: tuple[int, int], *path: Any) -> dict[str, Any]:
    return {
        "message": "Forbidden",
        "locations": [{"line": line_column[0], "column": line_column[1]}],
        "path": list(path),
        "extensions": {"code": "FORBIDDEN"},
    }


async def test_a_nested_field_without_permission_is_null_with_an_error_at_each_place():
    manager = manager_of(secret, native)
    document = "subscription { secret { id x: hidden children { hidden id } } }"
    async with (
        manager,
        manager.subscribe(document) as masked,
        manager.subscribe(document, context=SecurityContext(permissions=["see"])) as allowed,
        manager.subscribe("subscription { native { secret { id hidden } } }") as passthrough,
    ):
        await manager.publish_event("x", "c", {"secret": BODY})
        payload = await one(masked)
        assert payload["data"] == {"secret": {"id": "1", "x": None, "children": [{"hidden": None, "id": "2"}]}}
        assert sorted(payload["errors"], key=str) == sorted(
            [forbidden((1, 28), "secret", "x"), forbidden((1, 49), "secret", "children", 0, "hidden")], key=str
        )
        assert await one(allowed) == {
            "data": {"secret": {"id": "1", "x": "h", "children": [{"hidden": "h2", "id": "2"}]}}
        }
        assert await one(passthrough) == {
            "data": {"native": {"secret": {"id": "1", "hidden": None}}},
            "errors": [forbidden((1, 37), "native", "secret", "hidden")],
        }


async def test_a_masked_field_is_never_read():
    reads: list[str] = []

    class Object:
        id = "1"

        @property
        def hidden(self) -> str:
            reads.append("hidden")
            return "h"

    @subscription(channel="c")
    async def item(event: Event) -> Secret:
        return Object()  # type: ignore[return-value]  # as good as one

    manager = manager_of(item)
    document = "subscription { item { id hidden } }"
    async with manager:
        async with manager.subscribe(document) as masked:
            await manager.publish_event("x", "c", {})
            assert (await one(masked))["data"] == {"item": {"id": "1", "hidden": None}}
            assert reads == []
        async with (
            manager.subscribe(document) as masked,
            manager.subscribe(document, context=SecurityContext(permissions=["see"])) as allowed,
        ):
            await manager.publish_event("x", "c", {})
            assert (await one(allowed))["data"] == {"item": {"id": "1", "hidden": "h"}}
            assert (await one(masked))["data"] == {"item": {"id": "1", "hidden": None}}
            assert reads == ["hidden"]


@pytest.mark.parametrize(
    "document",
    [
        "subscription { secret { strict } }",
        "subscription { secret { children { x: strict } } }",
        "subscription { secret { ...F } } fragment F on Secret { ... on Secret { strict } }",
        "subscription { native { secret { id strict } } }",
    ],
)
async def test_a_non_null_one_refuses_the_subscription(document):
    manager = manager_of(secret, native)
    async with manager:
        with pytest.raises(Forbidden, match=r"^Forbidden$"):
            async with manager.subscribe(document):
                pass
        assert nonzero(manager, "violations") == {"fields": 1}
        async with manager.subscribe(document, context=SecurityContext(permissions=["see"])) as stream:
            await manager.publish_event("x", "c", {"secret": {**BODY, "children": [{"strict": "t"}]}})
            assert "errors" not in await one(stream)


async def test_one_of_several_permissions_is_enough_for_requires_any():
    manager = manager_of(secret)
    document = "subscription { secret { either } }"
    async with (
        manager,
        manager.subscribe(document, context=SecurityContext(permissions=["count"])) as some,
        manager.subscribe(document) as none,
    ):
        await manager.publish_event("x", "c", {"secret": BODY})
        assert await one(some) == {"data": {"secret": {"either": 1}}}
        assert await one(none) == {
            "data": {"secret": {"either": None}},
            "errors": [forbidden((1, 25), "secret", "either")],
        }


async def test_a_guarded_list_is_null_as_a_whole():
    manager = manager_of(secret)
    async with manager, manager.subscribe("subscription { secret { several } }") as stream:
        await manager.publish_event("x", "c", {"secret": BODY})
        assert await one(stream) == {
            "data": {"secret": {"several": None}},
            "errors": [forbidden((1, 25), "secret", "several")],
        }


@dataclass
class Left:
    id: ID
    only: Annotated[str | None, requires("left")] = None


@dataclass
class Right:
    id: ID
    only: str | None = None


@subscription(channel="c")
async def either(event: Event) -> Left | Right:
    return (Left if event.data["left"] else Right)(ID("1"), only="o")


async def test_the_walk_sees_every_type_behind_a_union():
    manager = manager_of(either)
    document = "subscription { either { ... on Left { id only } ... on Right { id only } __typename } }"
    async with manager, manager.subscribe(document) as stream:
        await manager.publish_event("x", "c", {"left": False})
        assert await one(stream) == {"data": {"either": {"id": "1", "only": "o", "__typename": "Right"}}}
        await manager.publish_event("x", "c", {"left": True})
        assert await one(stream) == {
            "data": {"either": {"id": "1", "only": None, "__typename": "Left"}},
            "errors": [forbidden((1, 42), "either", "only")],
        }


SDL = """
interface Node { id: ID! secret: String }
type A implements Node { id: ID! secret: String }
type B implements Node { id: ID! secret: String }
type Query { q: Int }
type Subscription { node: Node }
"""


async def test_masked_and_permitted_viewers_of_one_document_share_the_call_not_the_bytes():
    calls: list[int] = []

    @subscription(channel="c")
    async def counted(event: Event) -> Secret:
        calls.append(1)
        return Secret(ID("1"), hidden="h")

    manager = manager_of(counted)
    document = "subscription { counted { hidden } }"
    async with (
        manager,
        manager.subscribe(document) as masked,
        manager.subscribe(document, context=SecurityContext(permissions=["see"])) as allowed,
    ):
        await manager.publish_event("x", "c", {})
        assert await one(allowed) == {"data": {"counted": {"hidden": "h"}}}
        assert (await one(masked))["data"] == {"counted": {"hidden": None}}
    assert calls == [1]


@pytest.mark.parametrize("bad", ["see", ["see"], requires, viewer("roles"), True])
def test_requires_takes_requirements_alone(bad):
    with pytest.raises(SchemaError, match="requires"):

        @subscription(channel="c", requires=bad)
        async def guarded(event: Event) -> int:
            return 1


def test_empty_requirements_raise():
    for make in (requires, requires_any):
        with pytest.raises(ValueError, match="permission"):
            make()
        with pytest.raises(ValueError, match="permission"):
            make("")
        with pytest.raises(TypeError):
            make(["a"])  # type: ignore[arg-type]  # that is the point


async def test_rows_read_roles_and_claims():
    @subscription(
        channel="c",
        passthrough=True,
        rows=viewer("roles").contains(data["role"]) & (data["org"] == viewer("claims", "org")),
    )
    def by_role() -> Plain:
        raise NotImplementedError

    manager = manager_of(by_role)
    context = SecurityContext(roles=["editor", "reader"], claims={"org": {"id": 1}})
    async with manager, manager.subscribe("subscription { byRole { n } }", context=context) as stream:
        for n, (role, org) in enumerate(
            [
                ("admin", {"id": 1}),
                ("reader", {"id": 2}),
                ("reader", {"id": 1}),
                (None, {"id": 1}),
                ("editor", {"id": 1.0}),
            ]
        ):
            await manager.publish_event("x", "c", {"n": n, "role": role, "org": org})
        assert await take(stream, 2) == [{"data": {"byRole": {"n": n}}} for n in (2, 4)]


async def test_expired_and_forbidden_look_alike():
    manager = manager_of(needs_all)
    async with manager:
        with pytest.raises(Forbidden) as raised:
            async with manager.subscribe("subscription { needsAll { n } }"):
                pass
        assert raised.value.args == ("Forbidden",)
        # What is wrong with the request itself is told, as the schema is no secret.
        with pytest.raises(GraphQLRequestError):
            async with manager.subscribe("subscription { needsAll { nope } }"):
                pass


def test_the_sdl_with_an_interface_builds():
    @subscription(channel="c")
    async def node(event):
        return None

    assert "interface Node" in Schema.from_sdl(SDL, [node]).sdl
