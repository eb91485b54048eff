"""What the tests of values share: a condition, asked of one event by `explain`; unknown is told from false."""

from __future__ import annotations

import json
from typing import Any

from fraiseql_subs import Event, Schema, SecurityContext, SubscriptionManager, subscription

SDL = """
scalar JSON
scalar Decimal
scalar Date
scalar DateTime
scalar Time
scalar UUID
enum Status { OPEN CLOSED }
input Inner { id: ID, amount: Decimal }
input Filter { status: Status, amount: Decimal, least: Int = 3, inner: Inner, any: JSON }
type Query { ok: Boolean }
"""


class Raw(str):
    """JSON text of an event, where a Python value could not say it."""


def event_of(data: dict[str, Any] | Raw, **envelope: Any) -> Event:
    """An event; `explain` and `publish_events` take its `data` as text, too."""
    given: Any = data
    return Event("e", "c", given, **envelope)


def schema_of(arguments: str = "", **conditions: Any) -> Schema:
    """A field for each condition, by its name, on the channel `c`; all have these arguments: `x: Int!, y: [ID]`."""
    declared = f"({arguments})" if arguments else ""
    fields = "\n".join(f"  {name}{declared}: JSON" for name in conditions)
    return Schema.from_sdl(
        f"{SDL}\ntype Subscription {{\n{fields}\n}}", subscriptions=[declare(*each) for each in conditions.items()]
    )


def declare(name: str, condition: Any) -> Any:
    """A passthrough with a condition: a predicate as `where`, or any options."""
    options = condition if isinstance(condition, dict) else {"where": condition}

    def declared():  # the SDL has its types
        raise NotImplementedError

    return subscription(name=name, channel="c", passthrough=True, **options)(declared)


def query_of(field: str, arguments: str = "") -> str:
    """A document that hands on variables of the same names as the arguments."""
    if not arguments:
        return f"subscription {{ {field} }}"
    names = [part.split(":")[0].strip() for part in arguments.split(",")]
    variables = ", ".join(f"${part.strip()}" for part in arguments.split(","))
    return f"subscription ({variables}) {{ {field}({', '.join(f'{name}: ${name}' for name in names)}) }}"


class Judge:
    """A condition and its negation: true, false, or `None`, which is neither.

    Args:
        condition: A predicate.
        arguments: What the field takes, as SDL.
        as_rows: Whether it is asked as `rows`.
    """

    def __init__(self, condition: Any, arguments: str = "", *, as_rows: bool = False) -> None:
        option = "rows" if as_rows else "where"
        schema = schema_of(arguments, yes={option: condition}, no={option: ~condition})
        self.manager = SubscriptionManager(schema)
        self._arguments = arguments

    def __call__(
        self,
        data: dict[str, Any] | Raw,
        *,
        previous: dict[str, Any] | str | None = None,
        context: SecurityContext | None = None,
        literal: str | None = None,
        **variables: Any,
    ) -> bool | None:
        """Variables are those given; `literal` is what stands between the field's parentheses in their place."""
        truths = []
        for field in ("yes", "no"):
            query = query_of(field, self._arguments) if literal is None else f"subscription {{ {field}{literal} }}"
            explained = self.manager.explain(
                query, event_of(data), previous=previous, variables=variables, context=context
            )
            assert explained.stage in ("where", "rows", "delivered"), explained
            truths.append(explained.delivered)
        assert truths != [True, True]
        return None if truths == [False, False] else truths[0]


def json_of(**members: str) -> Raw:
    """An event whose values are these JSON texts, to the letter."""
    return Raw("{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in members.items()) + "}")
