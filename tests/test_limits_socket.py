"""Limits as a client meets them: each at its last allowed value and one beyond."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from fraiseql_subs import JSON, Event, Limits, Schema, SubscriptionManager, subscription

from .sockets import NARROW, Client, gauges, next_frame, publish_tick, served, text_of, tick, tick_of, ticking, until

TOO_SLOW = (1013, "Slow consumer")


def limit_error(operation: str, message: str) -> str:
    return text_of(
        {"id": operation, "type": "error", "payload": [{"message": message, "extensions": {"code": "LIMIT_EXCEEDED"}}]}
    )


# ---- connections ----


async def test_one_connection_too_many_is_closed_1013_and_a_place_is_free_again_at_once():
    async with ticking(limits=Limits(max_connections=2)) as (manager, server):
        async with server.acknowledged() as one, server.acknowledged(), server.client() as third:
            await third.send({"type": "connection_init"})
            assert await third.closed() == (1013, "Too many connections")
            assert gauges(manager)["connections"] == 2
            await one.close()
            await until(lambda: gauges(manager)["connections"] == 1)
            async with server.acknowledged():
                assert gauges(manager)["connections"] == 2


async def test_beyond_the_pending_ones_the_oldest_is_closed_4408():
    async with ticking(limits=Limits(max_pending_connections=2)) as (_, server):
        async with server.client() as first, server.client() as second:
            for client in (first, second):
                await client.sync()
            async with server.client() as third:
                assert await first.closed() == (4408, "Connection initialisation timeout")
                for client in (second, third):
                    await client.init()
            # Those that are acknowledged are not pending.
            async with server.client() as fourth, server.client() as fifth:
                for client in (fourth, fifth):
                    await client.init()


async def test_no_init_in_time_closes_4408_whatever_else_is_said():
    async with ticking(limits=Limits(connection_init_timeout=0.2)) as (_, server):
        async with server.client() as silent, server.client() as pinging, server.acknowledged() as prompt:
            await pinging.sync()
            for client in (silent, pinging):
                assert await client.closed() == (4408, "Connection initialisation timeout")
            await prompt.sync()


async def test_a_client_that_answers_pings_stays_and_one_that_does_not_is_closed_4408():
    async with ticking(limits=Limits(ping_interval=0.1, pong_timeout=0.2)) as (manager, server):
        async with server.acknowledged() as answering, server.acknowledged() as silent:
            await silent.subscribe("1", tick_of("a"))
            for _ in range(3):
                await answering.expect({"type": "ping"})
                await answering.send({"type": "pong"})
            await silent.expect({"type": "ping"})
            assert await silent.closed() == (4408, "Pong timeout")
            assert gauges(manager) == {"connections": 1, "subscriptions": 0}


async def test_one_subscription_too_many_is_an_error_and_the_socket_stays():
    async with ticking(limits=Limits(max_subscriptions_per_connection=2)) as (manager, server):
        async with server.acknowledged() as client, server.acknowledged() as other:
            await client.subscribe("1", tick_of("a"))
            await client.subscribe("2", tick_of("a"))
            await client.ask("3", tick_of("a"))
            await client.expect(limit_error("3", "Too many subscriptions on this connection"))
            await other.subscribe("3", tick_of("a"))
            await publish_tick(manager, "a", 1)
            await client.expect(next_frame("1", {"tick": {"n": 1}}), next_frame("2", {"tick": {"n": 1}}))
            await client.complete("1")
            await client.subscribe("3", tick_of("a"))
            assert gauges(manager)["subscriptions"] == 3


# ---- messages ----


async def test_a_message_may_have_max_message_bytes_and_no_more():
    async with ticking(limits=Limits(max_message_bytes=1_000)) as (_, server):
        for size in (1_000, 1_001):
            async with server.acknowledged() as client:
                head, tail = '{"type":"ping","payload":{"a":"', '"}}'
                frame = head + "é" * 100 + "x" * (size - 200 - len(head) - len(tail)) + tail
                assert len(frame.encode()) == size
                await client.send(frame)
                if size == 1_000:
                    assert await client.receive() == frame.replace("ping", "pong")
                else:
                    assert await client.closed() == (1009, "Message too big")


async def test_fragments_count_together():
    async with ticking(limits=Limits(max_message_bytes=1_000)) as (_, server), server.acknowledged() as client:
        await client.ws.send(['{"type":', '"ping","payload":', "{}}"])
        await client.expect({"type": "pong", "payload": {}})
        await client.ws.send(['{"type":"ping","payload":{"a":"', *["x" * 100] * 11, '"}}'])
        assert await client.closed() == (1009, "Message too big")


async def test_what_is_too_long_for_the_server_does_not_reach_us():
    async with ticking(server={"ws_max_size": 1_000}) as (manager, server):
        async with server.acknowledged() as client:
            await client.send("x" * 1_001)
            assert (await client.closed())[0] == 1009
        await until(lambda: gauges(manager)["connections"] == 0)


# ---- documents ----

NEXT = {"tick": {"n": 1}}


async def refusal(client: Client, query: str) -> Any:
    """What an error says of a query; `None` where it is live."""
    await client.ask("1", query)
    await client.send({"type": "ping"})
    message = await client.message()
    if message == {"type": "pong"}:
        await client.complete("1")
        return None
    assert message["type"] == "error"
    await client.expect({"type": "pong"})
    return message["payload"]


def with_bytes(count: int) -> str:
    query = "subscription { tick(of: 1) { n } }"
    return query + " " * (count - len(query))


def with_tokens(count: int) -> str:
    # subscription { tick ( of : 1 ) { n } } has 12; commas are none.
    return "subscription { tick(of: 1) { " + "n " * (count - 11) + "} } , , #"


def with_depth(count: int) -> str:
    return "subscription { deep " + "{ down " * (count - 2) + "{ n } " + "} " * (count - 2) + "}"


def with_fields(count: int) -> str:
    # The fragment counts where it is spread, twice.
    spread = (count - 1) // 3
    rest = count - 1 - 2 * spread
    fields = " ".join(["n"] * spread)
    return f"subscription {{ tick(of: 1) {{ ...F ...F {'n ' * rest} }} }} fragment F on Tick {{ {fields} }}"


def with_aliases(count: int) -> str:
    half = count // 2
    names = " ".join(f"a{n}: n" for n in range(half))
    rest = " ".join(f"b{n}: n" for n in range(count - 2 * half))
    return f"subscription {{ tick(of: 1) {{ ...F ...F {rest} }} }} fragment F on Tick {{ {names} }}"


class Deep:
    n: int


def schema() -> Schema:
    sdl = """
        type Query { _empty: Boolean }
        type Tick { n: Int text: String }
        type Deep { n: Int down: Deep }
        type Subscription { tick(of: ID!): Tick deep: Deep }
    """

    @subscription(channel="deep", passthrough=True)
    def deep() -> Any:
        raise NotImplementedError

    return Schema.from_sdl(sdl, subscriptions=[tick, deep])


@pytest.mark.parametrize(
    ("limit", "most", "document"),
    [
        ("max_query_bytes", 500, with_bytes),
        ("max_query_tokens", 100, with_tokens),
        ("max_query_depth", 9, with_depth),
        ("max_query_fields", 50, with_fields),
        ("max_query_aliases", 12, with_aliases),
    ],
)
async def test_a_document_may_have_as_much_as_the_limit_and_no_more(limit, most, document):
    manager = SubscriptionManager(schema(), limits=Limits(**{limit: most}))
    async with served(manager) as (_, server), server.acknowledged() as client:
        assert await refusal(client, document(most)) is None
        (error,) = await refusal(client, document(most + 1))
        assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
        assert str(most) in error["message"]
        # The same once more: a refusal that is remembered is the same refusal.
        assert await refusal(client, document(most + 1)) == [error]
        assert await refusal(client, document(most)) is None


# ---- readers ----


async def test_a_reader_that_stops_is_closed_1013_and_others_receive_everything():
    async with ticking(server=NARROW, limits=Limits(queue_messages=100)) as (manager, server):
        async with server.acknowledged(narrow=True) as stopped, server.acknowledged() as reading:
            for client in (stopped, reading):
                await client.subscribe("1", "subscription { tick(of: 1) { n text } }")
            await stopped.subscribe("2", tick_of("quiet"))
            stopped.stop_reading()

            for n in range(1_000):
                await publish_tick(manager, 1, n, text="x" * 1_000)
                assert f'"n":{n},' in await reading.receive()
            assert gauges(manager) == {"connections": 1, "subscriptions": 1}
            metrics = manager.get_metrics()
            assert metrics["events_dropped"]["overflow"] >= 100

            stopped.read_on()
            received = 0
            while (frame := await stopped.frame_or_close()) != TOO_SLOW:
                assert f'"n":{received},' in str(frame)
                received += 1
            assert received < 1_000 - 100


async def test_what_waited_for_others_on_the_connection_is_counted_with_what_overflowed():
    async with ticking(limits=Limits(queue_messages=10)) as (manager, server):
        async with server.acknowledged() as client:
            await client.subscribe("full", tick_of("full"))
            await client.subscribe("other", tick_of("other"))
            # The loop has no turn in between, so nothing is taken.
            for channel, count in (("other", 8), ("full", 11), ("other", 1)):
                for n in range(count):
                    await publish_tick(manager, channel, n)
            assert await client.closed() == TOO_SLOW
        metrics = manager.get_metrics()
        assert (metrics["events_delivered"], metrics["events_dropped"]["overflow"]) == (0, 20)


@pytest.mark.parametrize("rule", ["drop_oldest", "drop_newest", "latest"])
async def test_the_other_rules_keep_the_reader_and_tell_it_what_it_has_lost(rule):
    limits = Limits(queue_messages=50, overflow=rule)
    async with ticking(server=NARROW, limits=limits) as (manager, server), server.acknowledged(narrow=True) as client:
        await client.subscribe("1", "subscription { tick(of: 1) { n text } }")
        client.stop_reading()
        for n in range(1_000):
            await publish_tick(manager, 1, n, text="x" * 1_000)
        assert gauges(manager) == {"connections": 1, "subscriptions": 1}
        dropped = manager.get_metrics()["events_dropped"]["overflow"]
        assert dropped > 0
        client.read_on()
        received: list[int] = []
        told = 0
        while len(received) < 1_000 - dropped + 1:
            if len(received) == 1_000 - dropped:
                await publish_tick(manager, 1, 1_000)  # tells what was lost last
            payload = (await client.message())["payload"]
            told += payload.get("extensions", {}).get("dropped", 0)
            received.append(payload["data"]["tick"]["n"])
            if rule != "drop_newest":
                assert told == received[-1] + 1 - len(received)
        assert told == dropped
        assert received == sorted(received)
        await client.sync()


async def test_a_rule_of_the_field_replaces_that_of_the_limits():
    @subscription(channel="ticks:1", passthrough=True, overflow="latest")
    async def newest() -> JSON:
        raise NotImplementedError

    manager = SubscriptionManager(Schema(subscriptions=[newest]), limits=Limits(queue_messages=1_000))
    async with served(manager, server=NARROW) as (_, server), server.acknowledged(narrow=True) as client:
        await client.subscribe("1", "subscription { newest }")
        client.stop_reading()
        for n in range(1_000):
            await publish_tick(manager, 1, n, text="x" * 1_000)
        client.read_on()
        numbers: list[int] = []
        told = 0
        while not numbers or numbers[-1] < 999:
            payload = (await client.message())["payload"]
            numbers.append(payload["data"]["newest"]["n"])
            told += payload.get("extensions", {}).get("dropped", 0)
        assert len(numbers) + told == 1_000


@pytest.mark.parametrize("ask", ["ping", "error", "introspection"])
async def test_a_client_that_asks_without_reading_the_answers_is_closed(ask):
    messages = {
        "ping": {"type": "ping", "payload": {"a": "x" * 1_000}},
        "error": {"id": "1", "type": "subscribe", "payload": {"query": "{ nobody }"}},
        "introspection": {"id": "1", "type": "subscribe", "payload": {"query": "{ __schema { types { name } } }"}},
    }
    async with ticking(server=NARROW, limits=Limits(queue_messages=100)) as (manager, server):
        async with server.acknowledged() as other, server.acknowledged(narrow=True) as client:
            client.stop_reading()

            async def ask_on() -> None:
                while True:
                    await client.send(messages[ask])

            asking = asyncio.create_task(ask_on())
            # Whether the close still reaches a client that has sent more than is read is the kernel's to decide.
            await until(lambda: gauges(manager)["connections"] == 1)
            client.abort()
            with pytest.raises(ConnectionClosed):
                await asking
            await other.sync()


async def test_many_messages_at_once_are_answered_and_keep_nobody_waiting():
    """More in one segment than may wait for a reader: it reads, so none is lost."""
    async with ticking(server=NARROW, limits=Limits(queue_messages=100)) as (_, server):
        async with server.acknowledged() as client, server.acknowledged() as other:
            for n in range(3_000):
                client.ws.protocol.send_text(text_of({"type": "ping", "payload": {"n": n}}).encode())
            client.ws.transport.write(b"".join(client.ws.protocol.data_to_send()))
            await other.sync()
            await client.expect(*({"type": "pong", "payload": {"n": n}} for n in range(3_000)))


async def test_a_result_that_is_too_large_is_told_in_its_place():
    async with (
        ticking(server=NARROW, limits=Limits(max_result_bytes=200, max_event_bytes=200)) as (manager, server),
        server.acknowledged() as client,
    ):
        await client.subscribe("1", "subscription { tick(of: 1) { text again: text } }")
        for size in (10, 100, 20):
            await publish_tick(manager, 1, 1, text="x" * size)
        await client.expect(next_frame("1", {"tick": {"text": "x" * 10, "again": "x" * 10}}))
        too_large = await client.message()
        assert too_large["payload"]["errors"][0]["extensions"]["code"] == "RESULT_TOO_LARGE"
        await client.expect(next_frame("1", {"tick": {"text": "x" * 20, "again": "x" * 20}}))
        assert manager.get_metrics()["events_dropped"]["result"] == 1


async def test_a_function_of_a_reader_that_stops_holds_back_nobody():
    @subscription(channel="ticks:1")
    async def shared(event: Event) -> JSON:
        return event.data

    manager = SubscriptionManager(Schema(subscriptions=[shared]), limits=Limits(queue_messages=100))
    async with served(manager, server=NARROW) as (_, server):
        async with server.acknowledged(narrow=True) as stopped, server.acknowledged() as reading:
            for client in (stopped, reading):
                await client.subscribe("1", "subscription { shared }")
            stopped.stop_reading()
            for n in range(1_000):
                await publish_tick(manager, 1, n, text="x" * 1_000)
                assert f'"n":{n},' in await reading.receive()
            assert gauges(manager) == {"connections": 1, "subscriptions": 1}
            stopped.abort()
