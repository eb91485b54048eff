"""Variables, literals and defaults against graphql-core: who is refused and where, and what a function is given.

Types, requests and values are generated, a few of them wrong. Where we differ, `DEVIATIONS` says why.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import graphql
import pytest
from graphql.execution.values import get_argument_values, get_variable_values
from graphql.utilities import value_from_ast_untyped
from hypothesis import given

from fraiseql_subs import GraphQLRequestError, Schema, SchemaError, SubscriptionManager, subscription
from tests.oracle import Chooser, cases, choosers, running, snake, tell

# ---- how scalars are written, well and badly, as GraphQL and as JSON ----

TEXTS: dict[str, dict[str, Any]] = {
    "DateTime": {
        "2026-01-02T03:04:05Z": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        "2026-01-02T03:04:05.25+02:00": datetime(2026, 1, 2, 3, 4, 5, 250_000, timezone(timedelta(hours=2))),
        "2026-01-02T03:04:05": datetime(2026, 1, 2, 3, 4, 5),
    },
    "Date": {"2028-02-29": date(2028, 2, 29)},
    "Time": {"03:04:05": time(3, 4, 5), "03:04:05.000001": time(3, 4, 5, 1)},
    "UUID": {"C0FFEE00-0000-4000-8000-00000000000A": UUID(int=0xC0FFEE00_0000_4000_8000_00000000000A)},
    "Decimal": {"1.50": Decimal("1.50"), "-1e3": Decimal("-1e3"), "1": Decimal(1)},
}
WRONG_TEXTS = ["", "2026-02-30", "2026-02-30T00:00:00Z", "24:00", "1.5.0", "C0FFEE00", "noon"]
NUMBERS = ["0", "-1", "2147483647", "-2147483648"]
FRACTIONS = ["1.5", "-0.25", "1e3", "12E-1"]
STRINGS = ['""', '"a"', r'"é\n\u00e9\"\\"', '"""  a block\n  of "text" """', '"\U0001f600"']
LITERALS = {
    "Int": NUMBERS,
    "Float": NUMBERS + FRACTIONS + ["2147483648"],
    "String": STRINGS,
    "Boolean": ["true", "false"],
    "ID": ['"a"', "7", '"7"', "-12345678901234567890"],
    "JSON": ["1", "1.5", '"a"', "true", "A", "[]", "{}", "{a: [1, {b: null}]}", "12345678901234567890"],
    "Odd": ["1", '"a"'],
    **{name: [f'"{text}"' for text in texts] for name, texts in TEXTS.items()},
}
LITERALS["Decimal"] += ["1", "2.5"]
JUNK_LITERALS = [
    "null", "1", "1.5", '"a"', "true", "A", "B", "Z", "[]", "[1]", "[null]", "[[1]]", "{}", "{a: 1}", "{zzz: 1}",
    "2147483648", '"A"', '"1"', *(f'"{text}"' for text in WRONG_TEXTS),
]  # fmt: skip
VALUES: dict[str, list[Any]] = {
    "Int": [0, -1, 2147483647, -2147483648, 3.0],
    "Float": [0, -1, 1.5, 1e300, 2147483648, 10**20],
    "String": ["", "a", 'é\n"\\', "\U0001f600"],
    "Boolean": [True, False],
    "ID": ["a", 7, "7", -(10**19), 7.0],
    "JSON": [1, 1.5, "a", True, [], {}, {"a": [1, {"b": None}]}, 10**20],
    "Odd": [1, "a"],
    **{name: list(texts) for name, texts in TEXTS.items()},
}
VALUES["Decimal"] += [1, 2.5]
JUNK_VALUES = [
    None, 1, 1.5, "a", True, "A", "B", "Z", [], [1], [None], [[1]], {}, {"a": 1}, {"zzz": 1},
    2147483648, -2147483649, 1.5e10, 10**400, "1", *WRONG_TEXTS,
]  # fmt: skip


def custom(name: str) -> Callable[[Any], Any]:
    """What a scalar of our own makes of JSON."""

    def parse(value: Any) -> Any:
        if name == "Decimal" and isinstance(value, (int, float)) and not isinstance(value, bool):
            return Decimal(str(value))
        if isinstance(value, str) and value in TEXTS[name]:
            return TEXTS[name][value]
        raise graphql.GraphQLError(f"no {name}: {value!r}")

    return parse


# ---- schemas, documents and variables ----

OMITTED = object()


@dataclass
class Variable:
    type: str
    default: str | None


@dataclass
class Generator:
    """Makes a schema's types, then requests against it. A type is its text, as in SDL."""

    choose: Chooser
    enums: dict[str, list[str]] = field(default_factory=dict)
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    defaults: dict[tuple[str, str], str] = field(default_factory=dict)
    one_of: set[str] = field(default_factory=set)
    arguments: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    #: In percent, how often something is not as it should be.
    wrong: int = 0

    def schema(self) -> str:
        choose = self.choose
        self.enums = {"E": ["A", "B"], "Other": ["A", "camelCase"]}
        for index in range(choose.integer(0, 3)):
            name = f"Input{index}"
            self.inputs[name] = {}
            one_of = choose.chance(25)
            if one_of:
                self.one_of.add(name)
                self.inputs[name]["scalar"] = choose.one(list(LITERALS))
            for member in ["a", "b", "someField", "class", "x1Y"][: choose.integer(1, 4)]:
                self.inputs[name][member] = self.reference(name).removesuffix("!" if one_of else "")
        for argument in ["a", "someArgument", "z"][: choose.integer(1, 3)]:
            self.arguments[argument] = self.reference("Subscription.field")
        self.wrong = 2
        for owner, members in {**self.inputs, "": self.arguments}.items():
            for member, reference in members.items():
                if owner not in self.one_of and choose.chance(30):
                    self.defaults[owner, member] = self.literal(reference, 2)
        written = ", ".join(self.member("", name, reference) for name, reference in self.arguments.items())
        parts = [
            f"type Subscription {{ field({written}): Result }}",
            f"type Result {{ ok: Boolean, again({written}): Boolean }}",
            "type Types { a: Int, b: Float, c: String, d: ID }",  # what no type mentions does not exist
            *(f"scalar {name}" for name in LITERALS if name in [*TEXTS, "JSON", "Odd"]),
            *(f"enum {name} {{ {' '.join(values)} }}" for name, values in self.enums.items()),
            *(
                f"input {name}{' @oneOf' * (name in self.one_of)} "
                f"{{ {', '.join(self.member(name, *member) for member in members.items())} }}"
                for name, members in self.inputs.items()
            ),
        ]
        return "\n".join(parts)

    def member(self, owner: str, name: str, reference: str) -> str:
        default = self.defaults.get((owner, name))
        return f"{name}: {reference}" + (f" = {default}" if default else "")

    def reference(self, owner: str) -> str:
        """A type; one that needs itself cannot be."""
        choose = self.choose
        name = choose.one([*LITERALS, *self.enums, *self.inputs, *self.inputs])
        bang = "!" if choose.chance(35) and name != owner else ""
        for _ in range(choose.one([0, 0, 0, 1, 1, 2])):
            name, bang = f"[{name}{bang}]", "!" if choose.chance(35) else ""
        return name + bang

    def may_be_absent(self, owner: str, member: str, reference: str) -> bool:
        return not reference.endswith("!") or (owner, member) in self.defaults

    def members(self, name: str, value: Callable[[str], Any]) -> list[tuple[str, Any]]:
        """The fields of an input object that are given, some of them wrongly."""
        choose, fields = self.choose, self.inputs[name]
        if name in self.one_of and not choose.chance(self.wrong):
            one = choose.one(list(fields))
            return [(one, value(fields[one] + "!"))]
        given = [
            (member, value(reference))
            for member, reference in fields.items()
            if not choose.chance(50 if self.may_be_absent(name, member, reference) else self.wrong)
        ]
        return [*given, ("unknown", value("Int"))] if choose.chance(self.wrong) else given

    def literal(self, reference: str, depth: int = 0, variables: bool = False) -> str:
        choose = self.choose
        if variables and choose.chance(25):
            return self.variable(reference)
        if choose.chance(self.wrong):
            return choose.one(JUNK_LITERALS)
        core = reference.removesuffix("!")
        if core == reference and choose.chance(15):
            return "null"
        if core[0] == "[":
            if choose.chance(20):
                return self.literal(core[1:-1], depth + 1)
            items = [self.literal(core[1:-1], depth + 1, variables) for _ in range(choose.integer(0, 2))]
            return f"[{', '.join(items)}]"
        if core in self.inputs:
            if depth > 3 and core == reference:
                return "null"
            members = self.members(core, lambda reference: self.literal(reference, depth + 1, variables))
            return "{" + ", ".join(f"{name}: {value}" for name, value in members) + "}"
        if core == "JSON" and variables and choose.chance(30):
            return f"{{k: {self.variable('JSON', new=True)}, l: [{self.variable('String', new=True)}]}}"
        return choose.one(self.enums.get(core) or LITERALS[core])

    def variable(self, reference: str, new: bool = False) -> str:
        """One that fits at a place of this type, mostly."""
        choose = self.choose
        if self.variables and not new and choose.chance(20):
            return f"${choose.one(list(self.variables))}"
        core = reference.removesuffix("!")
        choices = [reference, core + "!", core]
        if choose.chance(self.wrong) and not new:
            choices = [core[1:-1] if core[0] == "[" else f"[{core}]", self.reference("")]
        reference = choose.one(choices)
        default = self.literal(reference, 2) if choose.chance(25 if reference.endswith("!") else 40) else None
        name = choose.one(["v", "someVariable", "class"]) + str(len(self.variables))
        self.variables[name] = Variable(reference, default)
        return f"${name}"

    def value(self, reference: str, depth: int = 0) -> Any:
        """What a client sends for a variable."""
        choose = self.choose
        if choose.chance(self.wrong):
            return choose.one(JUNK_VALUES)
        core = reference.removesuffix("!")
        if core == reference and choose.chance(15):
            return None
        if core[0] == "[":
            if choose.chance(20):
                return self.value(core[1:-1], depth + 1)
            return [self.value(core[1:-1], depth + 1) for _ in range(choose.integer(0, 2))]
        if core in self.inputs:
            if depth > 3 and core == reference:
                return None
            return dict(self.members(core, lambda reference: self.value(reference, depth + 1)))
        return choose.one(self.enums.get(core) or VALUES[core])

    def request(self) -> tuple[str, dict[str, Any]]:
        choose = self.choose
        self.wrong = choose.one([0, 0, 2, 6])
        self.variables = {}
        root, nested = self.call("field"), self.call("again") + choose.one([""] * 9 + [" @skip(if: true)"])
        declared = [
            f"${name}: {each.type}" + (f" = {each.default}" if each.default else "")
            for name, each in self.variables.items()
        ]
        if choose.chance(self.wrong):
            declared.append("$unused: Int")
        declarations = "(" + "\n".join(declared) + ")" if declared else ""
        query = f"subscription {declarations} {{\n {root} {{ ok\n {nested} }} }}"
        given: dict[str, Any] = {"noSuchVariable": 1} if choose.chance(5) else {}
        for name, each in self.variables.items():
            required = each.type.endswith("!") and each.default is None
            if not choose.chance(self.wrong if required else 30):
                given[name] = self.value(each.type)
        return query, given

    def call(self, name: str) -> str:
        choose = self.choose
        given = [
            f"{argument}: {self.literal(reference, variables=True)}"
            for argument, reference in self.arguments.items()
            if not choose.chance(30 if self.may_be_absent("", argument, reference) else self.wrong)
        ]
        if choose.chance(self.wrong):
            given.append(choose.one([f"unknown: {self.literal('Int')}", f"a: {self.literal('Int')}"]))
        return f"{name}({', '.join(given)})" if given else name


# ---- what graphql-core says, and what a function is given ----

Arguments = list[dict[str, Any]]
Place = tuple[int, int]


class Oracle:
    """graphql-core, with the scalars that we know."""

    def __init__(self, sdl: str) -> None:
        self.schema = graphql.build_schema(sdl + "\ntype Query { _empty: Boolean }")
        for name, scalar in self.schema.type_map.items():
            if isinstance(scalar, graphql.GraphQLScalarType) and name in [*TEXTS, "JSON", "Odd"]:
                parse = custom(name) if name in TEXTS else lambda value: value
                scalar.coerce_input_value = parse
                scalar.coerce_input_literal = lambda node, parse=parse: parse(value_from_ast_untyped(node))
        self.is_valid = not graphql.validate_schema(self.schema)

    def ask(self, query: str, variables: dict[str, Any]) -> tuple[Arguments, list[graphql.GraphQLError]]:
        """The arguments of both calls, or the errors."""
        document = graphql.parse(query)
        if errors := graphql.validate(self.schema, document):
            return [], errors
        (operation,) = document.definitions
        assert isinstance(operation, graphql.OperationDefinitionNode)
        coerced = get_variable_values(self.schema, operation.variable_definitions or (), variables)
        if isinstance(coerced, list):
            return [], coerced
        (root,) = operation.selection_set.selections
        assert isinstance(root, graphql.FieldNode)
        assert root.selection_set
        _, nested = root.selection_set.selections
        calls = []
        for node, owner in ((root, "Subscription"), (nested, "Result")):
            parent = self.schema.type_map[owner]
            assert isinstance(node, graphql.FieldNode)
            assert isinstance(parent, graphql.GraphQLObjectType)
            if node.directives:
                continue
            definition = parent.fields[node.name.value]
            try:
                values = get_argument_values(definition, node, coerced)
            except graphql.GraphQLError as error:
                return [], [error]
            calls.append({snake(name): python(value, definition.args[name].type) for name, value in values.items()})
        return calls, []


def python(value: Any, type_: Any) -> Any:
    """A coerced value under Python's names."""
    if graphql.is_non_null_type(type_):
        return python(value, type_.of_type)
    if value is None:
        return None
    if graphql.is_list_type(type_):
        return [python(item, type_.of_type) for item in value]
    if graphql.is_input_object_type(type_):
        return {snake(name): python(member, type_.fields[name].type) for name, member in value.items()}
    return value


class Calls:
    """Our side: a manager whose functions keep what they are called with."""

    def __init__(self, arguments: Iterable[str], sdl: str) -> None:
        self._taken: Arguments = []

        class Result:
            ok = True

            def again(_, **given: Any) -> bool:
                self._taken.append(given)
                return True

        async def field(**given: Any) -> Result:
            self._taken.append({name: value for name, value in given.items() if value is not OMITTED})
            return Result()

        parameters = [
            inspect.Parameter(snake(name), inspect.Parameter.KEYWORD_ONLY, default=OMITTED) for name in arguments
        ]
        field.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self.manager = SubscriptionManager(Schema.from_sdl(sdl, [subscription(channel="c")(field)]))

    async def ask(self, query: str, variables: dict[str, Any]) -> tuple[Arguments, list[dict[str, Any]]]:
        """The arguments of both calls, or the errors."""
        self._taken.clear()
        try:
            async with self.manager.subscribe(query, variables=variables, framing="result") as stream:
                await self.manager.publish_event("e", "c", {})
                answer = json.loads(await anext(stream))
        except GraphQLRequestError as error:
            return [], error.errors
        assert "errors" not in answer
        return list(self._taken), []


def shown(value: Any) -> str:
    """Equal for equal values of equal types, whatever the order of keys."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {shown(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    return repr(value)


class Spans(graphql.Visitor):
    """Where the nodes of a document stand that hold values."""

    KINDS = (
        graphql.FieldNode,
        graphql.ArgumentNode,
        graphql.ObjectValueNode,
        graphql.ObjectFieldNode,
        graphql.VariableDefinitionNode,
    )

    def __init__(self, query: str) -> None:
        super().__init__()
        self._source = graphql.Source(query)
        self._spans: list[tuple[int, int]] = []
        graphql.visit(graphql.parse(self._source), self)

    def enter(self, node: graphql.Node, *_: Any) -> None:
        if isinstance(node, self.KINDS) and node.loc:
            self._spans.append((node.loc.start, node.loc.end))

    def near(self, ours: Place, theirs: set[Place]) -> bool:
        """Whether it is one of them, or begins a node around one, or is inside of a node that begins there."""
        spans = [(self._place(start), self._place(end)) for start, end in self._spans]
        around = any(start == ours and start <= place < end for start, end in spans for place in theirs)
        return ours in theirs or around or any(start in theirs and start <= ours < end for start, end in spans)

    def _place(self, offset: int) -> Place:
        at = graphql.get_location(self._source, offset)
        return at.line, at.column


def compare(query: str, theirs: list[graphql.GraphQLError], ours: list[dict[str, Any]]) -> None:
    """Both refuse or none does, and at places that belong together."""
    if any("must be non-nullable to be used for OneOf" in error["message"] for error in ours):
        return  # see DEVIATIONS
    assert bool(theirs) == bool(ours)
    if not theirs or any(error.locations is None for error in theirs):
        return  # of a list or an object where a scalar is expected it has lost the place
    codes = {error["extensions"]["code"] for error in ours}
    found = {(at["line"], at["column"]) for error in ours for at in error["locations"]}
    expected = {(at.line, at.column) for error in theirs for at in error.locations or ()}
    assert found
    if codes == {"BAD_USER_INPUT"}:
        assert found <= expected or found >= expected  # graphql-core tells one wrong argument alone
    else:
        assert codes <= {"GRAPHQL_VALIDATION_FAILED", "BAD_USER_INPUT"}
        spans = Spans(query)
        assert all(spans.near(place, expected) for place in found)


def test_coercion_is_graphql_cores() -> None:
    with running() as run:

        @cases(70)
        @given(choosers())
        def check(choose: Chooser) -> None:
            generator = Generator(choose)
            sdl = generator.schema()
            tell(sdl)
            oracle = Oracle(sdl)
            try:
                calls = Calls(generator.arguments, sdl)
            except SchemaError as error:
                tell(f"ours: {error}")
                assert not oracle.is_valid
                return
            assert oracle.is_valid

            async def ask() -> None:
                async with calls.manager:
                    for _ in range(8):
                        await same(oracle, calls, *generator.request())

            run(ask())

        check()


async def same(oracle: Oracle, calls: Calls, query: str, variables: dict[str, Any]) -> None:
    """Holds one request against graphql-core."""
    tell(f"{query}\n{variables}")
    expected, theirs = oracle.ask(query, variables)
    got, ours = await calls.ask(query, variables)
    tell(f"theirs: {theirs}\nours: {ours}")
    compare(query, theirs, ours)
    if not ours:
        assert shown(got) == shown(expected)


#: What was found: the argument's type, the operation's head and the arguments of both calls, variables.
FOUND: list[tuple[str, str, str, str, dict[str, Any]]] = [
    ("Date", "($v: Date = \"noon\")", "(a: $v)", "", {"v": "2028-02-29"}),
    ("[Date]", "($v: [[Date]] = [[1]])", "", "", {"v": []}),
    ("Date", "", "", '(a: "noon") @skip(if: true)', {}),
    ("One", "($v: One = {a: 1, b: null})", "(a: $v)", "", {"v": {"a": 1}}),
    ("One", "", "", "(a: {b: null}) @skip(if: true)", {}),
    ("[Date]", "", "", '(a: "2028-02-29")', {}),
    ("Many", "($v: Many)", "", "(a: $v)", {"v": {"someDate": "2028-02-29"}}),
]  # fmt: skip


def small(reference: str) -> str:
    """A schema whose fields take one argument."""
    scalars = "\n".join(f"scalar {name}" for name in [*TEXTS, "JSON"])
    return f"""
        type Subscription {{ field(a: {reference}): Result }}
        type Result {{ ok: Boolean, again(a: {reference}): Boolean }}
        input One @oneOf {{ a: Int, b: Int }} input Many {{ someDate: Date, someFloat: Float = 1 }} {scalars}
    """


@pytest.mark.parametrize(("reference", "head", "root", "nested", "variables"), FOUND)
def test_what_was_found(reference: str, head: str, root: str, nested: str, variables: dict[str, Any]) -> None:
    oracle, calls = Oracle(small(reference)), Calls(["a"], small(reference))

    async def ask() -> None:
        async with calls.manager:
            await same(oracle, calls, f"subscription {head} {{ field{root} {{ ok again{nested} }} }}", variables)

    with running() as run:
        run(ask())


# ---- where we differ, and why ----

REFUSED = object()
DEVIATIONS: list[tuple[str, str, str, str, dict[str, Any], Any, Any]] = [
    # why, the argument's type, the operation's head, what is written, variables, graphql-core's value, ours
    ("NUL cannot be stored or compared everywhere", "String", "", r'"a\u0000"', {}, "a\0", REFUSED),
    ("infinity is no JSON and equals nothing", "Float", "", "1e400", {}, float("inf"), REFUSED),
    ("graphql-core does not see @oneOf behind a `!`", "One!", "($v: Int)", "{a: $v}", {"v": 1}, {"a": 1}, REFUSED),
    ("a variable is its coerced value", "JSON", "($v: [Int])", "{a: $v}", {"v": 1}, {"a": 1}, {"a": [1]}),
]


@pytest.mark.parametrize(("why", "reference", "head", "literal", "variables", "theirs", "ours"), DEVIATIONS)
def test_deviations(
    why: str, reference: str, head: str, literal: str, variables: dict[str, Any], theirs: Any, ours: Any
) -> None:
    query = f"subscription {head} {{ field(a: {literal}) {{ ok again(a: {literal}) }} }}"
    calls = Calls(["a"], small(reference))

    async def ask() -> Any:
        async with calls.manager:
            return await calls.ask(query, variables)

    assert Oracle(small(reference)).ask(query, variables) == ([{"a": theirs}] * 2, []), why
    with running() as run:
        got, errors = run(ask())
    assert got == ([] if ours is REFUSED else [{"a": ours}] * 2), why
    assert bool(errors) == (ours is REFUSED), why
