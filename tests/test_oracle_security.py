"""Who receives what, against the model of it: which requests are refused, which events come, and what is left of them.

Each request is made by each viewer, and each event is published once: then whoever shares an index entry, a plan or a
function's call with somebody else gets what is his own and nothing more.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any, ForwardRef, Optional, Union

import pytest
from hypothesis import given as given_by

from fraiseql_subs import (
    Event,
    Forbidden,
    GraphQLRequestError,
    Schema,
    SecurityContext,
    SubscriptionManager,
    requires,
    requires_any,
    subscription,
    viewer,
)
from fraiseql_subs.security import Requirement
from tests import security_model as model
from tests.oracle import FACTOR, Chooser, cases, choosers, running, tell
from tests.predicate_model import ABSENT, seen
from tests.security_cases import ANNOTATIONS, INPUTS, SCOPES_DIRECTIVE, Case, generate
from tests.security_model import Declaration, Input, Member, Published, Request, Viewer, camel

#: How many pairs of a subscription and an event are compared at least, and how many each stage decides; how many
#: requests each module refuses, results have masked fields, and calls there are. Else it would prove little.
PAIRS, EACH_STAGE, REFUSED, MASKED, CALLS = 200_000, 2_000, 10, 500, 5_000
#: Of how many pairs one is asked for its explanation.
EXPLAINED = 24
STAGES = ["tenant", "channel", "event_type", "sources", "where", "rows", "delivered"]
REASONS = ["tenant", "fields", "sources", "scope", "expired", "request", "generator: sources"]

# ---- schemas ----


class Built:
    """The schema and its functions as our users write them."""

    def __init__(self, case: Case) -> None:
        self.case, self.types = case, case.rules.types
        #: What each call was told, and which fields.
        self.calls: list[tuple[str, frozenset[str] | None]] = []
        functions = [self.function(one) for one in case.declared]
        if case.is_code_first:
            objects = [one for one in self.types.values() if one.behind is None]
            classes = [
                make_dataclass(one.name, [(each.python, self.member(each)) for each in one.members.values()])
                for one in objects
            ]
            self.schema = Schema(functions, types=classes)
        else:
            self.schema = Schema.from_sdl(sdl_of(self.types, case.declared), functions)

    # ---- code first ----

    def member(self, member: Member) -> Any:
        annotation = self.annotation(member.ref)
        return annotation if member.guard is None else Annotated[annotation, requirement(member.guard)]

    def annotation(self, ref: str) -> Any:
        of, name = model.item(ref), model.named(ref)
        known = {"Int": int, "String": str}
        if of is not None:
            core: Any = list[self.annotation(of)]  # type: ignore[misc]  # it is made here
        elif name in known:
            core = known[name]
        else:
            core = Union[tuple(map(ForwardRef, self.types[name].behind or [name]))]  # noqa: UP007  # of texts
        return core if ref.endswith("!") else Optional[core]  # noqa: UP045  # likewise

    def function(self, of: Declaration) -> Any:
        result = self.annotation(of.ref) if self.case.is_code_first else inspect.Signature.empty
        names = ["info"] * of.takes_info + ["event"] * (of.kind in ("async", "sync"))
        parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
        for name, input_ in of.arguments.items():
            annotation = ANNOTATIONS[input_.ref] if self.case.is_code_first else inspect.Parameter.empty
            default = None if input_.default is ABSENT else input_.default
            parameters.append(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            )
        if of.kind == "generator" and self.case.is_code_first:
            result = AsyncIterator[result]  # type: ignore[valid-type]  # it is made here
        make = {"passthrough": passthrough, "sync": self.sync, "async": self.asynchronous, "generator": self.generating}
        function: Any = make[of.kind](of)
        function.__name__ = of.name
        function.__signature__ = inspect.Signature(parameters, return_annotation=result)
        options: dict[str, Any] = {
            "channel": of.channel,
            "event_types": of.event_types,
            "where": of.where and of.where.real,
            "rows": of.rows and of.rows.real,
            "sources": of.sources,
            "scope": {path: viewer(*of_viewer) for path, (of_viewer, _) in of.scope.items()} or None,
            "requires": of.guard and requirement(of.guard),
        }
        return subscription(passthrough=of.kind == "passthrough", **options)(function)

    def sync(self, of: Declaration) -> Callable[..., Any]:
        def function(event: Any, info: Any = None, **given: Any) -> Any:
            return self.called(of, event, info, given)

        return function

    def asynchronous(self, of: Declaration) -> Callable[..., Any]:
        async def function(event: Any, info: Any = None, **given: Any) -> Any:
            return self.called(of, event, info, given)

        return function

    def generating(self, of: Declaration) -> Callable[..., Any]:
        async def function(info: Any, **given: Any) -> Any:
            yield self.case.yielded | {"told": told(of, None, None, given, info)}

        return function

    def called(self, of: Declaration, event: Any, info: Any, given: dict[str, Any]) -> Any:
        text = told(of, event.data["n"], event.tenant_id, given, info)
        self.calls.append((text, info and frozenset(info.selected_fields)))
        value = {**event.data, "told": text}
        event.data.clear()  # it is this call's own
        return value


def passthrough(of: Declaration) -> Callable[..., Any]:
    def function(**given: Any) -> Any:
        raise NotImplementedError

    return function


def told(of: Declaration, n: int | None, tenant: Any, given: dict[str, Any], info: Any) -> str:
    watching = SecurityContext() if info is None else info.viewer
    return model.told(of, n, tenant, given, Viewer(watching, seen(watching)))


def requirement(guard: model.Guard) -> Any:
    if len(guard) == 1:
        return requires(*guard[0])
    if all(len(alternative) == 1 for alternative in guard):
        return requires_any(*(one for (one,) in guard))
    return Requirement(tuple(map(tuple, guard)))  # as only SDL can write it


def sdl_of(types: model.Types, declared: list[Declaration]) -> str:
    def guarded(guard: model.Guard | None) -> str:
        return f" @requiresScopes(scopes: {json.dumps(guard)})" if guard and SCOPES_DIRECTIVE else ""

    def inputs(of: dict[str, Input]) -> str:
        default = lambda one: "" if one.default is ABSENT else f" = {json.dumps(one.default)}"  # noqa: E731
        return ", ".join(f"{camel(name)}: {one.ref}{default(one)}" for name, one in of.items())

    lines = ["scalar UUID", *(f"input {name} {{ {inputs(of)} }}" for name, of in INPUTS.items())]
    for one in types.values():
        members = ", ".join(f"{name}: {each.ref}{guarded(each.guard)}" for name, each in one.members.items())
        interfaces = f" implements {' & '.join(one.interfaces)}" if one.interfaces else ""
        kind = "type" if one.behind is None else "interface"
        lines.append(
            f"{kind} {one.name}{interfaces} {{ {members} }}"
            if members
            else f"union {one.name} = {' | '.join(one.behind or [])}"
        )
    roots = [
        f"{one.name}{f'({inputs(one.arguments)})' if one.arguments else ''}: {one.ref}{guarded(one.guard)}"
        for one in declared
    ]
    return "\n".join([*lines, f"type Subscription {{ {' '.join(roots)} }}"])


# ---- the comparison ----


@dataclass
class Watch:
    """One subscription: a request by a viewer."""

    request: Request
    viewer: Viewer
    #: `accepted`, `request`, `expired`, or the module that refused it.
    outcome: str = ""
    payloads: list[Any] = field(default_factory=list)
    #: By event, what decided about it, as the model sees it.
    stages: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{describe(self.request.of)}\n{self.request.text}\n{self.request.variables}\n{self.viewer.context}"

    def heard(self, case: Case) -> list[Published]:
        pairs = zip(case.events, self.stages, strict=False)  # a refused one has no stages
        return [event for event, stage in pairs if stage == "delivered"]

    def value(self, event: Published) -> Any:
        """What the root field gives."""
        of, request = self.request.of, self.request
        if of.kind == "passthrough":
            return event.data
        return {**event.data, "told": model.told(of, event.data["n"], event.tenant, request.arguments, self.viewer)}


def describe(of: Declaration) -> str:
    conditions = {"where": of.where and of.where.text, "rows": of.rows and of.rows.text}
    options = {**vars(of), **conditions, "arguments": {name: one.ref for name, one in of.arguments.items()}}
    return " ".join(f"{name}={value!r}" for name, value in options.items() if value not in (None, {}, [], False))


async def serve(case: Case, manager: SubscriptionManager, watches: list[Watch]) -> None:
    readers = []
    async with manager:
        for watch in watches:
            stream: Any = manager.subscribe(
                watch.request.text, variables=watch.request.variables, context=watch.viewer.context, framing="result"
            )
            watch.outcome = await outcome(manager, stream)
            if watch.outcome == "accepted":
                reader = asyncio.create_task(read(stream, watch))
                if watch.request.of.kind == "generator":
                    await reader  # it ends by itself
                readers.append(reader)
        for event in case.events:
            is_taken = model.is_published(case.rules, event)
            with nullcontext() if is_taken else pytest.raises(ValueError, match="tenant"):
                await publish(manager, event)
    # Leaving has waited for every call, and every reader has read to its end: nothing more can come.
    await asyncio.gather(*readers)


async def outcome(manager: SubscriptionManager, stream: Any) -> str:
    """`accepted`, `request`, `expired`, or the modules that have counted a violation; an unexpected error's text."""
    before = manager.get_metrics()["violations"]
    try:
        await stream.__aenter__()
    except GraphQLRequestError as error:
        codes = {one["extensions"]["code"] for one in error.errors}
        return "request" if codes == {"BAD_USER_INPUT"} else str(error.errors)
    except Forbidden as error:
        after = manager.get_metrics()["violations"]
        counted = [module for module, count in after.items() for _ in range(count - before[module])]
        return (",".join(counted) or "expired") if error.args == ("Forbidden",) else str(error)
    return "accepted"


async def publish(manager: SubscriptionManager, event: Published) -> None:
    if event.how == "many" and event.previous is None:
        await manager.publish_events([as_event(event)])
    else:
        data = json.dumps(event.data) if event.how == "text" else event.data
        rest = {"tenant_id": event.tenant, "source": event.source, "previous": event.previous}
        await manager.publish_event(event.event_type, event.channel, data, **rest)


def as_event(event: Published) -> Event:
    return Event(event.event_type, event.channel, event.data, tenant_id=event.tenant, source=event.source)


async def read(stream: Any, watch: Watch) -> None:
    watch.payloads = [json.loads(message) async for message in stream]


@dataclass
class Tally:
    """What was compared, so that the test can say that it was enough."""

    outcomes: Counter[str] = field(default_factory=Counter)
    #: Subscriptions and events by the stage that decided; generators hear of no events.
    pairs: Counter[str] = field(default_factory=Counter)
    explained: int = 0
    masked: int = 0
    calls: int = 0


def compare(case: Case, built: Built, manager: SubscriptionManager, watches: list[Watch], tally: Tally) -> None:
    for watch in watches:
        reasons = model.refusals(case.rules, watch.request, watch.viewer)
        expected = reasons or {"accepted"}
        if not reasons and model.may_be_refused(case.rules, watch.request, watch.viewer):
            expected |= {"fields"}
        check(watch.outcome in expected, watch, f"expected {expected}, got {watch.outcome}")
        tally.outcomes[watch.outcome] += 1
        if watch.request.of.kind == "generator":
            tally.outcomes[f"generator: {watch.outcome}"] += 1
        if watch.outcome == "accepted":
            watch.stages = [model.stage(case.rules, watch.request, watch.viewer, event) for event in case.events]
            tally.pairs.update(watch.stages if watch.request.of.kind != "generator" else ())
            compare_payloads(case, watch)
            tally.masked += sum("errors" in payload for payload in watch.payloads)
        tally.explained += compare_explanations(case, manager, watch)
    compare_calls(case, built, watches)
    tally.calls += len(built.calls)
    compare_metrics(case, manager, watches)


def compare_payloads(case: Case, watch: Watch) -> None:
    values: list[tuple[Published | None, Any]] = [(event, watch.value(event)) for event in watch.heard(case)]
    if watch.request.of.kind == "generator":
        text = model.told(watch.request.of, None, None, watch.request.arguments, watch.viewer)
        values = [(None, {**case.yielded, "told": text})]
    for place, (event, value) in enumerate(values):
        expected = model.payload(case.rules, watch.request, watch.viewer, value)
        got = watch.payloads[place] if place < len(watch.payloads) else None
        if got and "errors" in got:
            got["errors"] = model.in_order(got["errors"])
        check(got == expected, watch, f"{event}\nexpected: {expected}\n     got: {got}")
    check(len(watch.payloads) == len(values), watch, f"nothing of this was expected: {watch.payloads[len(values) :]}")


def compare_explanations(case: Case, manager: SubscriptionManager, watch: Watch) -> int:
    """A dry run finds what a real one does. Returns how many were asked for."""
    request, viewer = watch.request, watch.viewer
    asked = [place for place in range(len(case.events)) if (place + len(request.text)) % EXPLAINED == 0]
    for place in asked:
        event, masked = case.events[place], set()
        if watch.outcome != "accepted":
            stage = "request" if watch.outcome == "request" else "forbidden"
        else:
            stage = watch.stages[place]
            masked = model.masked(case.rules.types, request, viewer) if request.of.kind != "generator" else set()
        found = manager.explain(
            request.text,
            as_event(event),
            previous=event.previous,
            variables=request.variables,
            context=viewer.context,
        )
        got = found.delivered, found.stage, set(found.masked)
        expected = stage == "delivered", stage, masked
        check(got == expected, watch, f"{event}\nexpected: {expected}\n     got: {got}, {found.reason}")
    return len(asked)


def compare_calls(case: Case, built: Built, watches: list[Watch]) -> None:
    """A function is called once for an event and arguments (and tenant), one with `info` for viewer and selection."""
    #: By what a call is told: those who may share it, and how many orders of the selection there may be.
    sharing: dict[Any, dict[str, set[int]]] = {}
    for watch in watches:
        request, of = watch.request, watch.request.of
        selected = model.selected(case.rules.types, request, watch.viewer) if of.takes_info else None
        # Functions cannot tell an omitted argument from a null one, nor for which tenant an event for all is.
        tenant = None if of.takes_info else model.text(watch.viewer.context.tenant_id)
        shared = json.dumps([request.arguments, tenant], sort_keys=True)
        for event in watch.heard(case) if of.kind != "passthrough" else ():
            text = model.told(of, event.data["n"], event.tenant, request.arguments, watch.viewer)
            sharing.setdefault((text, selected), {}).setdefault(shared, set()).add(id(request) if of.takes_info else 0)
    calls = Counter(built.calls)
    assert calls.keys() == sharing.keys()
    for call, count in calls.items():
        # In which order fields were selected, the function is told, and the model is not.
        least, most = len(sharing[call]), sum(map(len, sharing[call].values()))
        assert least <= count <= most, f"{call}: {least} to {most}, not {count}"


def compare_metrics(case: Case, manager: SubscriptionManager, watches: list[Watch]) -> None:
    metrics = manager.get_metrics()
    assert metrics["events_published"] == sum(model.is_published(case.rules, event) for event in case.events)
    assert metrics["events_delivered"] == sum(len(watch.payloads) for watch in watches)
    assert metrics["resolver_errors"] == sum(metrics["events_dropped"].values()) == 0
    asked = [
        (watch, event)
        for watch in watches
        for event, stage in zip(case.events, watch.stages, strict=False)
        if stage in ("sources", "where", "rows")
    ]
    of_others = sum(model.is_foreign(watch.request, watch.viewer, event) for watch, event in asked)
    withheld = sum(not model.holds(watch.request.of.rows, watch.request, watch.viewer, event) for watch, event in asked)
    # What the index does not find is not looked at.
    assert metrics["events_filtered"]["sources"] <= of_others
    assert metrics["events_filtered"]["rows"] <= withheld


def check(holds: bool, watch: Watch, problem: str) -> None:
    if not holds:
        tell(f"{watch}\n{problem}")
    assert holds, problem


@pytest.mark.timeout(600 * FACTOR)
def test_who_receives_what_is_the_models() -> None:
    tally = Tally()
    with running() as run:

        @cases(380)
        @given_by(choosers())
        def check_case(choose: Chooser) -> None:
            case = generate(choose)
            built = Built(case)
            tell(built.schema.sdl)
            manager = SubscriptionManager(built.schema, multi_tenant=case.rules.multi_tenant)
            watches = [Watch(request, viewer) for request in case.requests for viewer in case.viewers]
            run(serve(case, manager, watches))
            compare(case, built, manager, watches, tally)

        check_case()
    print(tally)
    assert tally.pairs.total() >= PAIRS * FACTOR
    assert min(tally.pairs[stage] for stage in STAGES) >= EACH_STAGE * FACTOR
    assert min(tally.outcomes[reason] for reason in REASONS) >= REFUSED * FACTOR
    assert tally.masked >= MASKED * FACTOR
    assert tally.calls >= CALLS * FACTOR
