"""The examples in docs/examples run as they stand, over real sockets."""

from __future__ import annotations

import base64
import itertools
import json
import time
from typing import Any

import httpx2
import jwt
import pytest

from .conftest import EXAMPLES
from .sockets import FORBIDDEN, Client, gauges, next_frame, serving

KEY = "a key that only the issuer and the server know"
WATCH = "subscription { orderChanged { id status total } }"

_numbers = itertools.count()


@pytest.fixture
def example(monkeypatch, load) -> Any:
    """`jwt_auth`, new for each test."""
    monkeypatch.setenv("JWT_KEY", KEY)
    return load(EXAMPLES, "jwt_auth")


def claims_of(sub: str = "ada", **other: Any) -> dict[str, Any]:
    now = int(time.time())
    claims: dict[str, Any] = {"iss": "https://login.example.org", "aud": "orders", "sub": sub, "tenant": "acme"}
    claims |= {"iat": now, "exp": now + 3600, "jti": str(next(_numbers))}
    return {name: value for name, value in {**claims, **other}.items() if value is not None}


def token_of(sub: str = "ada", *, key: str = KEY, **other: Any) -> str:
    return jwt.encode(claims_of(sub, **other), key, algorithm="HS256")


def unsigned(sub: str = "ada") -> str:
    """What says of itself that nobody has to sign it."""
    parts = (json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims_of(sub)))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


async def refresh(client: Client, token: str) -> None:
    await client.ask_refresh({"token": token})


def expires(at: int) -> str:
    """What the `pong` says of an expiry."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(at))
    return f'{{"type":"pong","payload":{{"refresh":{{"ok":true,"expiresAt":"{stamp}"}}}}}}'


async def watch(client: Client) -> None:
    await client.subscribe("1", WATCH)


async def test_a_token_shows_what_its_roles_tenant_and_scopes_allow(example):
    async with serving(example.app) as server:
        tokens = {
            "ada": token_of("ada", scope="orders:read_total"),
            "bob": token_of("bob"),
            "staff": token_of("eve", roles=["staff"]),
            "elsewhere": token_of("ada", tenant="globex", roles=["staff"], scope="orders:read_total"),
        }
        clients = {name: await server.connect("/graphql/subscriptions") for name in tokens}
        for name, client in clients.items():
            await watch(await client.init({"token": tokens[name]}))
        for tenant, number, owner in (("acme", "1", "bob"), ("acme", "2", "ada"), ("globex", "3", "ada")):
            event = {"id": number, "status": "paid", "total": 9.5, "owner_id": owner}
            await example.manager.publish_event("x", "orders", event, tenant_id=tenant)
        path = {"locations": [{"line": 1, "column": 41}], "path": ["orderChanged", "total"]}
        forbidden = [{"message": "Forbidden", **path, "extensions": {"code": "FORBIDDEN"}}]

        def order(number: str, total: float | None) -> str:
            data = {"orderChanged": {"id": number, "status": "paid", "total": total}}
            return next_frame("1", data, **({} if total else {"errors": forbidden}))

        await clients["ada"].expect(order("2", 9.5))
        await clients["bob"].expect(order("1", None))
        await clients["staff"].expect(order("1", None), order("2", None))
        await clients["elsewhere"].expect(order("3", 9.5))
        for client in clients.values():
            await client.sync()  # and that was all
            await client.close()


@pytest.mark.parametrize(
    "token",
    [
        lambda: token_of(key="another key, as long as the one that counts"),
        lambda: token_of() + "x",
        unsigned,
        lambda: token_of(exp=int(time.time()) - 1),
        lambda: token_of(exp=None),
        lambda: token_of(jti=None),
        lambda: token_of(tenant=None),
        lambda: token_of(tenant=""),
        lambda: token_of(aud="invoices"),
        lambda: token_of(iss="https://login.example.com"),
        lambda: token_of(roles="staff"),
        lambda: None,
        lambda: ["a", "list"],
    ],
)
async def test_a_token_that_is_not_to_be_believed_closes_4403(example, token):
    async with serving(example.app) as server:
        async with server.client("/graphql/subscriptions") as client:
            await client.send({"type": "connection_init", "payload": {"token": token()}})
            assert await client.closed() == FORBIDDEN
        async with server.client("/graphql/subscriptions") as client:
            await client.send({"type": "connection_init"})
            assert await client.closed() == FORBIDDEN
        async with server.acknowledged("/graphql/subscriptions", {"token": token_of()}) as client:
            await client.sync()


async def test_a_refresh_moves_the_expiry_and_without_one_the_connection_ends(example):
    soon, later = int(time.time()) + 2, int(time.time()) + 3600
    async with serving(example.app) as server:
        async with (
            server.acknowledged("/graphql/subscriptions", {"token": token_of(exp=soon)}) as refreshed,
            server.acknowledged("/graphql/subscriptions", {"token": token_of(exp=soon)}) as forgetful,
        ):
            for client in (refreshed, forgetful):
                await watch(client)
            await refresh(refreshed, token_of(exp=later))
            await refreshed.expect(expires(later))
            assert await forgetful.closed() == FORBIDDEN
            order = {"id": "1", "status": "paid", "owner_id": "ada"}
            await example.manager.publish_event("x", "orders", order, tenant_id="acme")
            assert (await refreshed.message())["payload"]["data"]["orderChanged"]["id"] == "1"
            assert gauges(example.manager) == {"connections": 1, "subscriptions": 1}


async def test_a_refresh_by_a_bad_token_changes_nothing_and_by_anothers_ends_the_connection(example):
    async with serving(example.app) as server:
        async with server.acknowledged("/graphql/subscriptions", {"token": token_of()}) as client:
            await watch(client)
            await refresh(client, unsigned())
            await client.expect('{"type":"pong","payload":{"refresh":{"ok":false}}}')
            await client.sync()
        others = [token_of("bob"), token_of(tenant="globex"), token_of(roles=["staff"]), token_of(scope="a")]
        for other in [*others, token_of(department="sales")]:
            async with server.acknowledged("/graphql/subscriptions", {"token": token_of()}) as client:
                await watch(client)
                await refresh(client, other)
                assert await client.closed() == FORBIDDEN


async def test_a_logout_ends_what_is_open_and_the_token(example):
    async with serving(example.app) as server:
        token, other = token_of(), token_of("bob")
        async with (
            server.acknowledged("/graphql/subscriptions", {"token": token}) as client,
            server.acknowledged("/graphql/subscriptions", {"token": other}) as bystander,
            httpx2.AsyncClient(trust_env=False) as http,
        ):
            await watch(client)
            await watch(bystander)
            url = server.url("/logout", "http")
            assert (await http.post(url, headers={"authorization": f"Bearer {unsigned()}"})).status_code == 401
            await client.sync()
            assert (await http.post(url, headers={"authorization": f"Bearer {token}"})).status_code == 204
            assert await client.closed() == FORBIDDEN
            await bystander.sync()
            assert (await http.post(url, headers={"authorization": f"Bearer {token}"})).status_code == 401
        async with server.client("/graphql/subscriptions") as client:
            await client.send({"type": "connection_init", "payload": {"token": token}})
            assert await client.closed() == FORBIDDEN
        async with server.acknowledged("/graphql/subscriptions", {"token": token_of()}) as client:
            await client.sync()
