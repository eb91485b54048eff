"""Attacks by arguments and ids: what is checked is what is used, and what looks alike is another.

Beside each stands a value that is right, so that no test holds because nothing arrives.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from fraiseql_subs import (
    ID,
    JSON,
    Event,
    Schema,
    SecurityContext,
    SubscriptionManager,
    argument,
    data,
    subscription,
    viewer,
)

from .attacks import FORBIDDEN, attacked, attempt
from .sockets import next_frame

# ---- round a scope ----


OTHER = ID("other")


class Region(Enum):
    EU = "europe"
    US = "EU"  # the value of one is another's name


@dataclass
class Owner:
    id: ID | None = None
    tags: list[ID] | None = None


@dataclass
class Filter:
    owner: ID | None = None
    owners: list[Owner | None] | None = None
    defaulted: Owner | None = None


@subscription(channel="c", scope={"owner": viewer("user_id")})
async def owned(event: Event, owner: ID | None = OTHER) -> JSON:
    return owner


@subscription(channel="c", scope={"owners": viewer("user_id")})
async def listed(event: Event, owners: list[ID | None] | None = None) -> JSON:
    return owners


@subscription(channel="c", scope={"filter.owners.id": viewer("user_id")})
async def nested(event: Event, filter: Filter | None = None) -> JSON:
    assert filter is not None
    return [owner and owner.id for owner in filter.owners or ()]


@subscription(channel="c", scope={"filter.owners.tags": viewer("user_id")})
async def tagged(event: Event, filter: Filter) -> JSON:
    return [owner and owner.tags for owner in filter.owners or ()]


@subscription(channel="c", scope={"filter.owner": viewer("user_id")})
async def free(event: Event, filter: JSON) -> JSON:
    return filter


@subscription(channel="c", scope={"region": viewer("claims", "region")})
async def regional(event: Event, region: Region) -> JSON:
    return region.name


@subscription(channel="c", scope={"n": viewer("claims", "n")})
async def numbered(event: Event, n: JSON) -> JSON:
    return n


VIEWER = {"user_id": "42", "claims": {"region": "EU", "n": 1}}


async def scope_answers(function: Any, cases: list[tuple[str, str, Any]]) -> None:
    """Asks each query with its variables, as they stand: refused where nothing is expected, else this was used."""
    async with attacked(function) as (manager, server), server.acknowledged(payload=VIEWER) as client:
        for query, variables, used in cases:
            answer = await attempt(manager, client, query, variables)
            if used is None:
                assert answer == FORBIDDEN, (query, variables)
            else:
                assert isinstance(answer, dict), (query, variables, answer)
                assert list(answer["data"].values()) == [used], (query, variables)


OWNED = "subscription ($o: ID) { owned(owner: $o) }"


async def test_a_scope_cannot_be_passed_by_a_literal_or_a_variable():
    cases: list[tuple[str, str, Any]] = [
        ('subscription { owned(owner: "42") }', "{}", "42"),
        ("subscription { owned(owner: 42) }", "{}", "42"),
        ('subscription { owned(owner: """42""") }', "{}", "42"),
        ('subscription { owned(owner: "\\u0034\\u0032") }', "{}", "42"),
        (OWNED, '{"o":"42"}', "42"),
        (OWNED, '{"o":42}', "42"),
        (OWNED, '{"o":42.0}', "42"),  # as an ID that is 42, and nothing else
        ('subscription { owned(owner: "43") }', "{}", None),
        ("subscription { owned(owner: 43) }", "{}", None),
        (OWNED, '{"o":"43"}', None),
        (OWNED, '{"o":43}', None),
    ]
    await scope_answers(owned, cases)


async def test_a_scope_cannot_be_passed_by_null_or_by_leaving_it_out():
    cases: list[tuple[str, str, Any]] = [
        (OWNED, '{"o":"42"}', "42"),
        ("subscription { owned(owner: null) }", "{}", None),
        (OWNED, '{"o":null}', None),
        (OWNED, "{}", None),
        (OWNED, "null", None),
        (OWNED, '{"O":"42"}', None),
        ("subscription { owned }", "{}", None),
    ]
    await scope_answers(owned, cases)


async def test_a_scope_cannot_be_passed_by_a_default():
    cases: list[tuple[str, str, Any]] = [
        ("subscription { owned }", "{}", None),  # the function's own default
        ('subscription ($o: ID = "43") { owned(owner: $o) }', "{}", None),
        ('subscription ($o: ID = "43") { owned(owner: $o) }', '{"o":null}', None),
        ('subscription ($o: ID = "43") { owned(owner: $o) }', '{"o":"42"}', "42"),
        ('subscription ($o: ID = "42") { owned(owner: $o) }', "{}", "42"),
        ('subscription ($o: ID = "42") { owned(owner: $o) }', '{"o":"43"}', None),
    ]
    await scope_answers(owned, cases)


async def test_a_scope_cannot_be_passed_by_an_alias_or_a_fragment():
    cases: list[tuple[str, str, Any]] = [
        ("subscription { mine: owned(owner: 42) }", "{}", "42"),
        ("subscription { mine: owned(owner: 43) }", "{}", None),
        ("subscription { ...F } fragment F on Subscription { owned(owner: 43) }", "{}", None),
        ("subscription ($o: ID) { ...F } fragment F on Subscription { owned(owner: $o) }", '{"o":"43"}', None),
        ("subscription ($o: ID) { ...F } fragment F on Subscription { owned(owner: $o) }", '{"o":"42"}', "42"),
        ("subscription { ... on Subscription { owned(owner: 43) } }", "{}", None),
    ]
    await scope_answers(owned, cases)
    # Two at once, of which one is right, are no valid document.
    async with attacked(owned) as (manager, server), server.acknowledged(payload=VIEWER) as client:
        for query in ("{ owned(owner: 42) owned(owner: 43) }", "{ owned(owner: 42) x: owned(owner: 43) }"):
            [error, *_] = await attempt(manager, client, "subscription " + query)
            assert error["extensions"] == {"code": "GRAPHQL_VALIDATION_FAILED"}


LOOK_ALIKES = [
    "042",
    "42 ",
    " 42",
    "42.0",
    "+42",
    "4e1",
    "0x2A",
    "\uff14\uff12",
    "4\u200b2",
    "42\u0301",
    "\u0664\u0662",
    "42\n",
    "\ufeff42",
    "",
]


async def test_a_scope_cannot_be_passed_by_what_looks_alike():
    cases: list[tuple[str, str, Any]] = [(OWNED, json.dumps({"o": text}), None) for text in LOOK_ALIKES]
    await scope_answers(owned, [*cases, (OWNED, '{"o":"42"}', "42")])


async def test_of_duplicate_variables_the_one_that_is_checked_is_used():
    twice = "subscription ($o: ID) { owned(owner: $o) }"
    cases: list[tuple[str, str, Any]] = [
        (twice, '{"o":"43","o":"42"}', "42"),
        (twice, '{"o":"42","o":"43"}', None),
        (twice, '{"o":"42","\\u006f":"43"}', None),
        (twice, '{"\\u006f":"43","o":"42"}', "42"),
        (twice, '{"o":"42"},"variables":{"o":"43"}', None),
        (twice, '{"o":"43"},"variables":{"o":"42"}', "42"),
        (twice, '{"o":"42"},"variables":{}', None),
        (twice, '{"o":"42"},"query":"subscription { owned(owner: 43) }"', None),
        (twice, '{"o":"42"},"variables":null', None),
    ]
    await scope_answers(owned, cases)
    query = "subscription ($f: Filter!) { nested(filter: $f) }"
    cases = [
        (query, '{"f":{"owners":[{"id":"43"}],"owners":[{"id":"42"}]}}', ["42"]),
        (query, '{"f":{"owners":[{"id":"42"}],"owners":[{"id":"43"}]}}', None),
        (query, '{"f":{"owners":[{"id":"42","id":"43"}]}}', None),
        (query, '{"f":{"owners":[{"id":"42","id":null}]}}', None),
        (query, '{"f":{"owners":[{"id":"43","id":"42"}]}}', ["42"]),
    ]
    await scope_answers(nested, cases)
    query = "subscription ($f: JSON!) { free(filter: $f) }"
    cases = [
        (query, '{"f":{"owner":"43","owner":"42"}}', {"owner": "42"}),
        (query, '{"f":{"owner":"42","\\u006fwner":"43"}}', None),
    ]
    await scope_answers(free, cases)


async def test_a_scope_holds_for_every_element_of_a_list_and_an_empty_one_has_none():
    query = "subscription ($o: [ID]) { listed(owners: $o) }"
    cases: list[tuple[str, str, Any]] = [
        ('subscription { listed(owners: ["42", 42]) }', "{}", ["42", "42"]),
        ("subscription { listed(owners: 42) }", "{}", ["42"]),
        (query, '{"o":"42"}', ["42"]),
        (query, '{"o":["42"]}', ["42"]),
        (query, '{"o":["42","43"]}', None),
        (query, '{"o":["43","42"]}', None),
        (query, '{"o":["42",null]}', None),
        (query, '{"o":[null]}', None),
        (query, '{"o":[]}', None),
        (query, '{"o":null}', None),
        (query, "{}", None),
        ("subscription { listed }", "{}", None),
        ("subscription { listed(owners: []) }", "{}", None),
        ("subscription ($o: ID) { listed(owners: [42, $o]) }", '{"o":"43"}', None),
        ("subscription ($o: ID) { listed(owners: [42, $o]) }", "{}", None),
        ("subscription ($o: ID) { listed(owners: [42, $o]) }", '{"o":"42"}', ["42", "42"]),
        ('subscription ($o: [ID] = ["42", "43"]) { listed(owners: $o) }', "{}", None),
    ]
    await scope_answers(listed, cases)


async def test_a_scope_holds_in_every_object_of_a_list_of_them():
    query = "subscription ($f: Filter) { nested(filter: $f) }"
    inner = "subscription ($o: ID) { nested(filter: { owners: [{ id: 42 }, { id: $o }] }) }"
    cases: list[tuple[str, str, Any]] = [
        (query, '{"f":{"owners":[{"id":"42"},{"id":42}]}}', ["42", "42"]),
        (query, '{"f":{"owners":{"id":"42"}}}', ["42"]),
        (query, '{"f":{"owners":[{"id":"42"},{"id":"43"}]}}', None),
        (query, '{"f":{"owners":[{"id":"42"},{}]}}', None),
        (query, '{"f":{"owners":[{"id":"42"},{"id":null}]}}', None),
        (query, '{"f":{"owners":[{"id":"42"},null]}}', None),
        (query, '{"f":{"owners":[]}}', None),
        (query, '{"f":{"owners":null}}', None),
        (query, '{"f":{"owner":"42"}}', None),
        (query, '{"f":{"defaulted":{"id":"42"}}}', None),
        (query, '{"f":{}}', None),
        (query, '{"f":null}', None),
        (query, "{}", None),
        (inner, '{"o":"42"}', ["42", "42"]),
        (inner, '{"o":"43"}', None),
        (inner, '{"o":null}', None),
        (inner, "{}", None),  # a variable that is left out leaves its field out
        ("subscription { nested(filter: { owners: [{ id: 42 }, { tags: [42] }] }) }", "{}", None),
    ]
    await scope_answers(nested, cases)
    query = "subscription ($f: Filter!) { tagged(filter: $f) }"
    cases = [
        (query, '{"f":{"owners":[{"tags":["42"]},{"tags":["42",42]}]}}', [["42"], ["42", "42"]]),
        (query, '{"f":{"owners":[{"tags":["42"]},{"tags":["42","43"]}]}}', None),
        (query, '{"f":{"owners":[{"tags":["42"]},{"tags":[]}]}}', None),
    ]
    await scope_answers(tagged, cases)


async def test_a_scope_sees_into_a_scalar_that_takes_anything():
    query = "subscription ($f: JSON!) { free(filter: $f) }"
    cases: list[tuple[str, str, Any]] = [
        (query, '{"f":{"owner":"42","more":"43"}}', {"owner": "42", "more": "43"}),
        (query, '{"f":{"owner":42}}', {"owner": 42}),
        (query, '{"f":[{"owner":42},{"owner":["42"]}]}', [{"owner": 42}, {"owner": ["42"]}]),
        ("subscription { free(filter: { owner: 42 }) }", "{}", {"owner": 42}),
        ("subscription ($o: JSON) { free(filter: { owner: $o }) }", '{"o":"42"}', {"owner": "42"}),
        ("subscription ($o: JSON) { free(filter: { owner: $o }) }", '{"o":["42","43"]}', None),
        ("subscription ($o: JSON) { free(filter: { owner: $o }) }", "{}", None),
        (query, '{"f":{"owner":"43"}}', None),
        (query, '{"f":{"owner":42.0}}', None),
        (query, '{"f":{"owner":true}}', None),
        (query, '{"f":{"owner":null}}', None),
        (query, '{"f":{"owner":[]}}', None),
        (query, '{"f":{"owner":[[]]}}', None),
        (query, '{"f":{"owner":["42",[]]}}', None),
        (query, '{"f":{"owner":["42",["43"]]}}', None),
        (query, '{"f":{"owner":{"owner":"42"}}}', None),
        (query, '{"f":{"owner":{}}}', None),
        (query, '{"f":{"Owner":"42"}}', None),
        (query, '{"f":[{"owner":"42"},{"owner":"43"}]}', None),
        (query, '{"f":[{"owner":"42"},{}]}', None),
        (query, '{"f":[{"owner":"42"},"42"]}', None),
        (query, '{"f":"42"}', None),
        (query, '{"f":{"filter":{"owner":"42"}}}', None),
    ]
    await scope_answers(free, cases)
    # A literal that names a key twice is no valid one, or what counts is what is used.
    async with attacked(free) as (manager, server), server.acknowledged(payload=VIEWER) as client:
        for given in ("{ owner: 42, owner: 43 }", "{ owner: 43, owner: 42 }"):
            [error, *_] = await attempt(manager, client, f"subscription {{ free(filter: {given}) }}")
            assert error["extensions"] == {"code": "GRAPHQL_VALIDATION_FAILED"}


async def test_a_scope_compares_enums_by_name_and_numbers_by_type():
    query = "subscription ($r: Region!) { regional(region: $r) }"
    cases: list[tuple[str, str, Any]] = [
        ("subscription { regional(region: EU) }", "{}", "EU"),
        (query, '{"r":"EU"}', "EU"),
        (query, '{"r":"US"}', None),  # its value is "EU"
        ("subscription { regional(region: US) }", "{}", None),
    ]
    await scope_answers(regional, cases)
    query = "subscription ($n: JSON!) { numbered(n: $n) }"
    cases = [(query, '{"n":1}', 1), (query, '{"n":1.0}', 1)]
    cases += [(query, f'{{"n":{n}}}', None) for n in ("true", '"1"', "2", "1.0000000000000002", "{}", "[]", '{"n":1}')]
    await scope_answers(numbered, cases)


async def test_a_viewer_without_the_value_passes_no_scope():
    async with attacked(owned, regional, numbered) as (manager, server), server.acknowledged() as client:
        for query in (
            "{ owned(owner: null) }",
            '{ owned(owner: "") }',
            '{ owned(owner: "None") }',
            "{ numbered(n: {}) }",
        ):
            assert await attempt(manager, client, "subscription " + query) == FORBIDDEN
    async with attacked(owned) as (manager, server), server.acknowledged(payload={"user_id": ""}) as client:
        # An empty id is an id, and equals itself alone.
        assert await attempt(manager, client, 'subscription { owned(owner: "") }') == {"data": {"owned": ""}}
        assert await attempt(manager, client, "subscription { owned(owner: null) }") == FORBIDDEN


# ---- channels ----


@subscription(channel="c:{a}:{b}", passthrough=True)
async def pair(a: ID, b: ID) -> JSON:
    raise NotImplementedError


PAIR = "subscription ($a: ID!, $b: ID!) { pair(a: $a, b: $b) }"


@pytest.mark.parametrize(
    ("a", "b", "channel"),
    [
        ("x:y", "z", "c:x%3Ay:z"),
        ("x", "y:z", "c:x:y%3Az"),
        (":", ":", "c:%3A:%3A"),
        ("x:y:z", "", "c:x%3Ay%3Az:"),
        ("x%3Ay", "z", "c:x%253Ay:z"),
        ("x%25", "y", "c:x%2525:y"),
    ],
)
async def test_an_argument_cannot_name_a_channel_beyond_its_own_place(a, b, channel):
    async with attacked(pair) as (manager, server), server.acknowledged() as client:
        await client.subscribe("1", PAIR, variables={"a": a, "b": b})
        others = ["c:x:y:z", "c:x:y", "c:::", "c::", "c:x:y:z:", "c:x%3Ay", "c:x%3Ay:z:", "c:x%25:y", f"{channel}:"]
        for other in others:
            await manager.publish_event("x", other, {"n": 1})
        await manager.publish_event("x", channel, {"n": 2})
        await client.expect(next_frame("1", {"pair": {"n": 2}}))


@pytest.mark.parametrize(
    ("a", "b"), [("x\n", "y"), ("x", "\u0085"), ("x\u007f", "y"), ("x", "\t"), ("x" * 1024, ""), (":" * 400, "")]
)
async def test_an_argument_that_no_channel_can_hold_is_refused(a, b):
    async with attacked(pair) as (manager, server), server.acknowledged() as client:
        await client.ask("1", PAIR, variables={"a": a, "b": b})
        [error] = (await client.message())["payload"]
        assert error["extensions"] == {"code": "BAD_USER_INPUT"}
        await client.subscribe("1", PAIR, variables={"a": "x", "b": "y"})
        await manager.publish_event("x", "c:x:y:z", {"n": 1})
        await manager.publish_event("x", "c:x:y", {"n": 2})
        await client.expect(next_frame("1", {"pair": {"n": 2}}))


@pytest.mark.parametrize("a", ["{b}", "{{b}}", "%s", "{0}", "*", "?", "c", "..", "\u2028", "\uff59", "\u202e"])
async def test_a_placeholder_takes_every_other_value_as_it_is(a):
    async with attacked(pair) as (manager, server), server.acknowledged() as client:
        await client.subscribe("1", PAIR, variables={"a": a, "b": "y"})
        for channel in ("c:y:y", "c:b:y", "c::y", "c:x:y", "c"):
            await manager.publish_event("x", channel, {"n": 1})
        await manager.publish_event("x", "c:%25s:y" if a == "%s" else f"c:{a}:y", {"n": 2})
        await client.expect(next_frame("1", {"pair": {"n": 2}}))


async def test_a_channel_of_another_tenant_is_another_channel():
    query = 'subscription { pair(a: "x", b: "y") }'
    async with attacked(pair) as (manager, server):
        async with (
            server.acknowledged(payload={"tenant_id": "a"}) as a,
            server.acknowledged(payload={"tenant_id": "a:c:x:y"}) as b,
            server.acknowledged() as nobody,
        ):
            for client in (a, b, nobody):
                await client.subscribe("1", query)
            for n, tenant in enumerate((None, "a", "a:c:x:y")):
                await manager.publish_event("x", "c:x:y", {"n": n}, tenant_id=tenant)
                await manager.publish_event("x", "a:c:x:y", {"n": 9}, tenant_id=tenant)
            for n, client in enumerate((nobody, a, b)):
                await client.expect(next_frame("1", {"pair": {"n": n}}))
                await client.sync()


# ---- ids ----


LOWER, BIG = "c0ffee00-0000-4000-8000-000000000001", 2**70 + 1
EVENT_IDS: list[Any] = [
    42, "42", 42.0, True, "042", "True", "true", None, "", [42], {"id": 42}, BIG, str(BIG), float(BIG), BIG + 1,
    UUID(LOWER), LOWER, LOWER.upper(), "1", 1, "x" * 100_000, "x" * 99_999, " 42", -42, 420, "4_2", 42e1,
]  # fmt: skip


@subscription(channel="c", where=data["id"] == argument("id"), passthrough=True)
async def identified(id: ID) -> JSON:
    raise NotImplementedError


@subscription(channel="c", rows=data["id"] == viewer("user_id"), passthrough=True)
async def personal() -> JSON:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("given", "equal"),
    [
        ("42", [42, "42"]),
        ('"42"', [42, "42"]),
        ('"042"', ["042"]),
        ('"42.0"', []),
        ('"true"', ["true"]),
        ('"True"', ["True"]),
        ('""', [""]),
        (str(BIG), [BIG, str(BIG)]),
        (f'"{BIG}"', [BIG, str(BIG)]),
        (f'"{LOWER}"', [LOWER, UUID(LOWER)]),
        (f'"{LOWER.upper()}"', [LOWER.upper()]),
        (json.dumps("x" * 100_000), ["x" * 100_000]),
        ('"None"', []),
        ('"null"', []),
    ],
)
async def test_an_id_is_its_text_and_nothing_like_it(given, equal):
    def same(one: Any, other: Any) -> bool:
        return type(one) is type(other) and one == other

    expected = [n for n, its in enumerate(EVENT_IDS) if any(same(its, one) for one in equal)]
    assert len(expected) == len(equal)
    query = "subscription ($id: ID!) { identified(id: $id) }"
    variables = json.loads(f'{{"id":{given}}}')
    async with attacked(identified, personal) as (manager, server):
        async with (
            server.acknowledged() as client,
            server.acknowledged(payload={"user_id": variables["id"]}) as owner,
            server.acknowledged(payload={"user_id": "-"}) as other,
        ):
            await client.subscribe("1", query, variables=variables)
            await owner.subscribe("1", "subscription { personal }")
            await other.subscribe("1", "subscription { personal }")
            for n, its in enumerate(EVENT_IDS):
                await manager.publish_event("x", "c", {"n": n, "id": its})
            for who in (client, owner):
                ends = [json.loads(await who.receive())["payload"]["data"] for _ in expected]
                assert [next(iter(end.values()))["n"] for end in ends] == expected
            for who in (client, owner, other):
                await who.sync()


@pytest.mark.parametrize("id", [True, 42.0, 42.5, [42], {"id": 42}])
async def test_what_is_no_id_is_none(id):
    async with attacked(identified) as (manager, server), server.acknowledged() as client:
        await client.ask("1", "subscription ($id: ID!) { identified(id: $id) }", variables={"id": id})
        if id == 42.0:  # graphql-js takes it, as its JSON has but one kind of number
            await client.sync()
            await manager.publish_event("x", "c", {"id": 42.0})
            await manager.publish_event("x", "c", {"id": 42})
            await client.expect(next_frame("1", {"identified": {"id": 42}}))
        else:
            [error] = (await client.message())["payload"]
            assert error["extensions"] == {"code": "BAD_USER_INPUT"}
    with pytest.raises(TypeError):
        SecurityContext(user_id=id)
    with pytest.raises(TypeError):
        SecurityContext(tenant_id=id)
    async with SubscriptionManager(Schema(subscriptions=[identified])) as manager:
        with pytest.raises(TypeError):
            await manager.publish_event("x", "c", {}, tenant_id=id)


@pytest.mark.parametrize("id", ["\0", "4\x002", "\ud800", "42\udfff"])
async def test_an_id_that_cannot_travel_is_refused_everywhere(id):
    for name in ("user_id", "tenant_id"):
        with pytest.raises(ValueError, match=r"NUL|surrogate"):
            SecurityContext(**{name: id})
    async with attacked(identified) as (manager, server):
        for payload in ({"tenant_id": id}, {"data": {"id": id}}, {"data": {id: 42}}):
            with pytest.raises(ValueError, match=r"NUL|surrogate"):
                await manager.publish_event("x", "c", **{"data": {}, **payload})
        async with server.acknowledged() as client:
            escaped = json.dumps({"query": "subscription ($id: ID!) { identified(id: $id) }", "variables": {"id": id}})
            await client.send(f'{{"id":"1","type":"subscribe","payload":{escaped}}}')
            answer = await client.frame_or_close()
            if isinstance(answer, str):
                assert json.loads(answer)["payload"][0]["extensions"] == {"code": "BAD_USER_INPUT"}
                await client.subscribe("1", 'subscription { identified(id: "42") }')
                await manager.publish_event("x", "c", {"id": "42"})
                await client.expect(next_frame("1", {"identified": {"id": "42"}}))
            else:
                assert answer[0] == 4400


@subscription(channel="c", passthrough=True)
async def everything() -> JSON:
    raise NotImplementedError


async def test_no_tenant_is_every_tenant():
    """Names that somebody might have made special."""
    names = ["ALL_TENANTS", "AllTenants.ALL_TENANTS", "*", "null", "None", "0", "a", "A", " a", "a ", "\u0430"]
    async with attacked(everything, multi_tenant=True) as (manager, server):
        clients = [await server.connect() for _ in names]
        for name, client in zip(names, clients, strict=True):
            await client.init({"tenant_id": name})
            await client.subscribe("1", "subscription { everything }")
        for name in names:
            await manager.publish_event("x", "c", {"for": name}, tenant_id=name)
        for name, client in zip(names, clients, strict=True):
            await client.expect(next_frame("1", {"everything": {"for": name}}))
            await client.sync()
            await client.close()
