"""One path for us and for others: the recipes in docs/examples, as they stand."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute

from fraiseql_subs import RouteTaken

from .conftest import EXAMPLES
from .sockets import next_frame, serving

QUERY = {"query": "{ orderCount }"}


async def both_work(app: Any, example: Any) -> None:
    """A query and a subscription, on `/graphql`."""
    async with serving(app, lifespan="on") as server:
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.post(server.url("/graphql", "http"), json=QUERY)
            assert (answer.status_code, answer.json()) == (200, {"data": {"orderCount": 3}})
            page = await http.get(server.url("/graphql", "http"), headers={"accept": "text/html"})
            assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (200, "text/html")
        async with server.acknowledged("/graphql") as client:
            await client.subscribe("1", "subscription { orderChanged { id status } }")
            await example.manager.publish_event("orderUpdated", "orders", {"id": 1, "status": "paid"})
            await client.expect(next_frame("1", {"orderChanged": {"id": "1", "status": "paid"}}))
    assert example.manager.health()["state"] == "stopped"


@pytest.mark.parametrize("name", ["path_with_strawberry", "path_with_ariadne"])
async def test_queries_of_others_and_our_subscriptions_on_one_path(name, load):
    example = load(EXAMPLES, name)
    await both_work(example.app, example)


async def test_strawberrys_router_before_ours_is_told_when_the_application_starts(load):
    example = load(EXAMPLES, "path_with_strawberry")
    app = FastAPI()
    app.include_router(example.GraphQLRouter(example.strawberry.Schema(example.Query), path="/graphql"))
    app.include_router(example.SubscriptionRouterFactory.create(example.manager, path="/graphql"))
    with pytest.raises(RouteTaken, match="'/graphql'"):
        async with app.router.lifespan_context(app):
            pass


async def test_one_path_of_a_larger_application(load):
    example = load(EXAMPLES, "path_with_ariadne")
    routes = [Route("/graphql", example.served), WebSocketRoute("/graphql", example.served)]
    await both_work(Starlette(routes=routes, lifespan=example.manager.lifespan), example)
