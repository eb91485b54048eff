from typing import Any

import pytest

from fraiseql_subs import GraphQLMessage, SubscriptionPayload


@pytest.mark.parametrize(
    "message",
    [
        {"type": "connection_init"},
        {"type": "connection_init", "payload": {"token": "t"}},
        {"type": "connection_ack", "payload": {}},
        {"type": "ping", "payload": {"a": 1}},
        {"type": "pong"},
        {"type": "subscribe", "id": "1", "payload": {"query": "subscription { a }"}},
        {"type": "subscribe", "id": "1", "payload": {
            "query": "q", "operationName": "A", "variables": {"x": None}, "extensions": {"resume": True},
        }},
        {"type": "next", "id": "1", "payload": {"data": {"a": 1}}},
        {"type": "error", "id": "1", "payload": [{"message": "no"}]},
        {"type": "complete", "id": "1"},
    ],
)  # fmt: skip
def test_messages_survive_the_round_trip(message: dict[str, Any]):
    assert GraphQLMessage.from_dict(message).to_dict() == message


def test_a_subscribe_has_a_typed_payload():
    payload = {"query": "q", "operationName": "A", "variables": {"x": 1}, "unknown": 1}
    expected = SubscriptionPayload("q", variables={"x": 1}, operation_name="A")
    assert SubscriptionPayload.from_dict(payload) == expected
    assert GraphQLMessage.from_dict({"type": "subscribe", "id": "1", "payload": payload}).payload == expected
    assert GraphQLMessage("subscribe", "1", payload) == GraphQLMessage("subscribe", "1", expected)
    null = {"query": "q", "operationName": None, "variables": None, "extensions": None}
    assert SubscriptionPayload.from_dict(null).to_dict() == {"query": "q"}


SUBSCRIBE = {"type": "subscribe", "id": "1"}


@pytest.mark.parametrize(
    ("message", "error", "text"),
    [
        ([], TypeError, "message: expected a Mapping, got a list"),
        ({}, ValueError, "type: missing"),
        ({"type": 1}, TypeError, "type: expected a str, got a int"),
        ({"type": "start"}, ValueError, "type: expected one of connection_init, .*, got 'start'"),
        ({"type": "subscribe", "payload": {"query": "q"}}, TypeError, "subscribe.id: expected a str, got nothing"),
        ({"type": "subscribe", "id": "", "payload": {"query": "q"}}, ValueError, "subscribe.id: empty"),
        ({"type": "complete", "id": 1}, TypeError, "complete.id: expected a str"),
        ({"type": "complete", "id": "1", "payload": {}}, ValueError, "complete.payload: this message has none"),
        ({"type": "ping", "id": "1"}, ValueError, "ping.id: this message has none"),
        ({"type": "ping", "payload": []}, TypeError, "ping.payload: expected a dict, got a list"),
        (SUBSCRIBE, TypeError, "subscribe.payload: expected a SubscriptionPayload, got nothing"),
        ({**SUBSCRIBE, "payload": {}}, ValueError, "payload.query: missing"),
        ({**SUBSCRIBE, "payload": {"query": None}}, TypeError, "payload.query: expected a str, got nothing"),
        ({**SUBSCRIBE, "payload": {"query": "", "variables": []}}, TypeError, "payload.variables: expected a dict"),
        (
            {**SUBSCRIBE, "payload": {"query": "", "operationName": 1}},
            TypeError,
            "payload.operationName: expected a str",
        ),
        ({**SUBSCRIBE, "payload": {"query": "", "extensions": 1}}, TypeError, "payload.extensions: expected a dict"),
        ({"type": "next", "id": "1"}, TypeError, "next.payload: expected a dict, got nothing"),
        ({"type": "error", "id": "1", "payload": {}}, TypeError, "error.payload: expected a list"),
        ({"type": "error", "id": "1", "payload": [1]}, TypeError, r"error.payload\[0\]: expected a dict"),
        ({"type": "error", "id": "1", "payload": [{}]}, TypeError, r"error.payload\[0\].message: expected a str"),
    ],
)
def test_a_wrong_message_raises(message: Any, error: type[Exception], text: str):
    with pytest.raises(error, match=text):
        GraphQLMessage.from_dict(message)
