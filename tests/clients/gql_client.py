"""python gql_client.py URL COUNT: what driver.mjs does, with Python's gql. Prints the same lines."""

import asyncio
import json
import sys
from collections.abc import Mapping

from gql import Client, GraphQLRequest
from gql.client import AsyncClientSession
from gql.transport.exceptions import TransportError
from gql.transport.websockets import WebsocketsTransport

TICK = GraphQLRequest("subscription { tick { n text } }")
COUNTDOWN = GraphQLRequest("subscription ($start: Int!) { countdown(start: $start) }", variable_values={"start": 3})


def show(line: Mapping[str, object]) -> None:
    print(json.dumps(line), flush=True)


async def show_all(session: AsyncClientSession, request: GraphQLRequest) -> None:
    async for data in session.subscribe(request):
        show({"data": data})


async def watch(url: str, count: int) -> None:
    # Named alone: gql overlooks the choice of a server that writes its headers in lower case (hypercorn, granian).
    protocols = [WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL]
    client = Client(transport=WebsocketsTransport(url, init_payload={"token": "secret"}, subprotocols=protocols))
    try:
        async with client as session:
            ticks = session.subscribe(TICK)
            for _ in range(count):
                show({"data": await anext(ticks)})
            await ticks.aclose()
            show({"ended": "client"})
            await show_all(session, COUNTDOWN)
            show({"ended": "server"})
            await show_all(session, TICK)
    except TransportError:  # the server went away; nothing else ends the last line
        pass
    while True:
        try:
            async with client as session:
                await show_all(session, TICK)
        except (OSError, TransportError):
            await asyncio.sleep(0.05)


async def main(url: str, count: int) -> None:
    watching = asyncio.create_task(watch(url, count))
    await asyncio.to_thread(sys.stdin.read)  # until nobody listens to us
    watching.cancel()
    await asyncio.wait([watching])


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
