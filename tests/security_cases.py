"""What the oracle test of security tries: schemas, declarations, viewers, documents and events.

All is drawn from few values, so that ids, tenants and sources that are equal, or nearly so, meet.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

from fraiseql_subs import ALL_TENANTS, ID, SecurityContext, argument, data, previous, viewer
from tests import security_model as model
from tests.oracle import Chooser
from tests.predicate_model import ABSENT, Condition, Operand, at, compared, exists, is_null, seen, walk
from tests.security_model import (
    Declaration,
    Flag,
    Fragment,
    Input,
    Member,
    Picked,
    Published,
    Request,
    Rules,
    Type,
    Variable,
    Viewer,
    camel,
)

#: Whether SDL guards fields by `@requiresScopes`, interfaces' fields too.
SCOPES_DIRECTIVE = True

KEY = UUID("c0ffee00-0000-4000-8000-00000000000a")
#: Ids as a viewer has them; as JSON and as arguments, a UUID is its text.
IDS: list[Any] = ["a", "A", "", 1, "1", KEY, str(KEY), str(KEY).upper()]
PERMISSIONS = ["p", "q", "r"]
EVENT_TYPES = ["x", "y", "X"]
ORIGINS = ["s", "t", "S"]


@dataclass
class Inner:
    tenant_id: ID | None = None
    key: UUID | None = None
    n: int = 1


@dataclass
class Filter:
    tenant_id: ID | None = None
    ids: list[ID | None] | None = None
    inner: Inner | None = None
    inners: list[Inner | None] | None = None
    text: str = "a"


#: The same as the model sees it.
INPUTS: model.Inputs = {
    "Inner": {"tenant_id": Input("ID"), "key": Input("UUID"), "n": Input("Int!", 1)},
    "Filter": {
        "tenant_id": Input("ID"),
        "ids": Input("[ID]"),
        "inner": Input("Inner"),
        "inners": Input("[Inner]"),
        "text": Input("String!", "a"),
    },
}
#: All arguments that a field may take.
ARGUMENTS = {
    "part": Input("String!", "a"),
    "whose": Input("ID"),
    "ids": Input("[ID]"),
    "key": Input("UUID"),
    "n": Input("Int!", 1),
    "filter": Input("Filter"),
    "filters": Input("[Filter!]"),
}
ANNOTATIONS: dict[str, Any] = {
    "String!": str, "ID": ID | None, "[ID]": list[ID | None] | None, "UUID": UUID | None, "Int!": int,
    "Filter": Filter | None, "[Filter!]": list[Filter] | None,
}  # fmt: skip
#: What predicates compare of them, and how.
OPERANDS = {
    "part": "json", "whose": "id", "key": "id", "n": "json", "filter.tenant_id": "id", "filter.inner.key": "id",
    "filter.inner.n": "json", "filter.text": "json",
}  # fmt: skip
SCOPED = [
    "whose", "ids", "key", "n", "part", "filter.tenant_id", "filter.ids", "filter.inner.key", "filter.inner.n",
    "filter.inners.tenant_id", "filter.text", "filters.tenant_id", "filters.ids", "filters.inners.n",
]  # fmt: skip


def jsonable(id_: Any) -> Any:
    return str(id_) if isinstance(id_, UUID) else id_


@dataclass
class Case:
    """One manager's schema and all that happens there: every request is made by every viewer."""

    rules: Rules
    is_code_first: bool
    declared: list[Declaration]
    requests: list[Request]
    viewers: list[Viewer]
    events: list[Published]
    #: What generators yield, once.
    yielded: dict[str, Any]


def generate(choose: Chooser) -> Case:
    generator = Generator(choose)
    generator.make_types()
    generator.make_trees()
    generator.declare()
    declared, many = generator.declared, generator.many
    requests = [generator.request(choose.one(declared)) for _ in range(many(8))]
    viewers = [generator.viewer() for _ in range(many(6))]
    channels = [model.channel(each) or "c" for each in requests if each.of.kind != "generator"]
    events = [generator.event(n, channels) for n in range(many(60))]
    yielded = generator.trees[0]
    return Case(generator.rules, generator.is_code_first, declared, requests, viewers, events, yielded)


@dataclass
class Generator:
    choose: Chooser
    types: model.Types = field(default_factory=dict)
    #: The type of each field's name, the same wherever it has not been made stricter.
    refs: dict[str, str] = field(default_factory=dict)
    declared: list[Declaration] = field(default_factory=list)
    fragments: dict[str, Fragment] = field(default_factory=dict)

    def __post_init__(self) -> None:
        choose = self.choose
        self.ids = [choose.one(IDS) for _ in range(2)]
        self.is_code_first = choose.chance(60)
        self.rules = Rules(self.types, INPUTS, multi_tenant=choose.chance(30))

    def many(self, most: int) -> int:
        """Mostly as many as may be; they shrink to one."""
        return most if self.choose.chance(75) else self.choose.integer(1, most)

    # ---- types ----

    def make_types(self) -> None:
        choose = self.choose
        names = ["A", "B", "C"][: choose.integer(1, 3)]
        # In one order: to `typing`, a union in another order is the same.
        behind = choose.one([["A", "B"], ["B", "C"], names]) if len(names) == 3 else names if len(names) == 2 else []
        abstract = [] if not behind else ["".join(behind)] if self.is_code_first else ["Union", "Node"]
        composites = [*names, *abstract]
        self.refs = {
            "n": "Int",
            "told": "String",
            "label": choose.one(["String", "String", "String!"]),
            "theTotal": choose.one(["Int", "Int", "Int!"]),
            "tags": choose.one(["[String!]", "[String]!"]),
            "child": choose.one(composites),
            "kids": choose.one(["[{}!]!", "[{}]", "[{}!]"]).format(choose.one(composites)),
        }
        for name in names:
            members = ["n", "told", *choose.some(["label", "theTotal", "tags", "child", "kids"], 60)]
            self.types[name] = Type(name, {each: self.member(each) for each in members})
        for name in abstract:
            self.types[name] = Type(name, behind=behind)
        if "Node" in abstract:
            self.make_interface(self.types["Node"], [self.types[name] for name in behind])
        self.abstract = abstract

    def member(self, name: str) -> Member:
        may_hide = name not in ("n", "told") and (self.is_code_first or SCOPES_DIRECTIVE)
        return Member(snake(name), self.refs[name], self.guard() if may_hide and self.choose.chance(40) else None)

    def guard(self) -> model.Guard:
        """As `requires` and `requires_any` make them; with the directive, any."""
        choose = self.choose
        some = choose.some(PERMISSIONS) or ["p"]
        if SCOPES_DIRECTIVE and not self.is_code_first and choose.chance(30):
            return tuple(tuple(choose.some(PERMISSIONS) or ["q"]) for _ in range(choose.integer(1, 2)))
        return (tuple(some),) if choose.chance(60) else tuple((one,) for one in some)

    def make_interface(self, interface: Type, types: list[Type]) -> None:
        """Some of what all types behind it have; one of them may be stricter."""
        choose = self.choose
        shared = [name for name in types[0].members if all(name in one.members for one in types)]
        for name in shared:
            if name in ("n", "told") or choose.chance(80):
                guard = self.guard() if SCOPES_DIRECTIVE and name not in ("n", "told") and choose.chance(25) else None
                interface.members[name] = Member(snake(name), self.refs[name], guard)
                if name in ("label", "theTotal", "tags") and choose.chance(30):
                    types[0].members[name].ref = self.refs[name].removesuffix("!") + "!"
        for one in types:
            one.interfaces = [interface.name]

    # ---- declarations ----

    def declare(self) -> None:
        self.declared = [self.declaration(f"f{at}") for at in range(self.many(4))]

    def declaration(self, name: str) -> Declaration:
        choose = self.choose
        kind = choose.one(["passthrough"] * 9 + ["async"] * 11 + ["sync", "generator"] * 2)
        declared = Declaration(name, kind, choose.one(list(self.types)) + choose.one(["", "!"]), None)
        declared.takes_info = kind == "generator" or (kind != "passthrough" and choose.chance(50))
        declared.arguments = {each: ARGUMENTS[each] for each in choose.some(list(ARGUMENTS), 35)}
        if choose.chance(25):
            declared.guard = self.guard()
        if declared.arguments and choose.chance(15):
            paths = [path for path in SCOPED if path.split(".")[0] in declared.arguments]
            of_viewer = choose.one([(["tenant_id"], "id"), (["user_id"], "id"), (["claims", "k"], "json")])
            declared.scope = dict.fromkeys([choose.one(paths) for _ in range(choose.one([1, 1, 2]))], of_viewer)
        if kind == "generator":
            return declared
        parts = [f"c:{{{each}}}" for each in ("part", "n") if each in declared.arguments]
        declared.channel = choose.one([*["c"] * 5, None, *parts * 3])
        declared.event_types = choose.one([None, None, None, ["x"], ["x", "y"]])
        if choose.chance(45):
            declared.where = self.condition(declared)
        if choose.chance(45):
            declared.rows = self.condition(declared)
        if choose.chance(25):
            declared.sources = choose.some(ORIGINS) or ["s"]
        return declared

    def condition(self, of: Declaration, depth: int = 0) -> Condition:
        choose = self.choose
        how = choose.integer(0, 9) if depth < 2 else 0
        if how < 6:
            return self.comparison(of)
        if how < 7:
            return self.condition(of, depth + 1).negated()
        return self.condition(of, depth + 1).joined(self.condition(of, depth + 1), choose.chance(40))

    def comparison(self, of: Declaration) -> Condition:
        choose = self.choose
        left, right = self.of_event(), self.other(of)
        how = choose.one(["=="] * 6 + ["!=", "<", "in", "contains", "exists", "null", "other"])
        if how in ("exists", "null"):
            one = left if right.kind == "literal" else choose.one([left, right])
            return exists(one) if how == "exists" else is_null(one)
        if how == "in":
            values = [one for one in self.ids if one != ""] or ["a"]
            return compared("in", left, Operand(values, repr(values), "literal", lambda _: values))
        if how == "other":
            return compared("==", self.other(of), left)
        if how == "contains" and choose.chance(50):
            roles = Operand(viewer("roles"), "viewer['roles']", "json", lambda world: walk(world.viewer, ["roles"]))
            return compared("contains", roles, left)
        return compared(how, left, right)

    def of_event(self) -> Operand:
        path = self.choose.one([["a"], ["a"], ["b"], ["o", "a"]])
        if self.choose.chance(85):
            return Operand(at(data, path), f"data{path}", "json", lambda world: walk(world.data, path))
        return Operand(at(previous, path), f"previous{path}", "json", lambda world: walk(world.previous, path))

    def other(self, of: Declaration) -> Operand:
        """An argument, something of the viewer, or a literal."""
        choose = self.choose
        paths = [path for path in OPERANDS if path.split(".")[0] in of.arguments]
        if paths and choose.chance(40):
            path = choose.one(paths)
            steps = path.split(".")
            find = lambda world: walk(world.arguments, steps)  # noqa: E731
            return Operand(argument(*steps), f"argument{steps}", OPERANDS[path], find, is_given=len(steps) == 1)
        if choose.chance(70):
            steps, kind = choose.one([(["user_id"], "id"), (["tenant_id"], "id"), (["claims", "k"], "json")])
            find = lambda world: walk(world.viewer, steps)  # noqa: E731
            return Operand(viewer(*steps), f"viewer{steps}", kind, find, is_given=len(steps) == 1)
        value = choose.one([*self.ids, 1])
        return Operand(value, repr(value), "literal", lambda _: value)

    # ---- viewers ----

    def viewer(self) -> Viewer:
        choose = self.choose
        now = datetime.now(timezone.utc)
        expires = {"": None, "past": now - timedelta(days=1), "future": now + timedelta(days=1)}
        context = SecurityContext(
            user_id=choose.one([*self.ids, None, choose.one(IDS)]),
            tenant_id=choose.one(self.tenants),
            roles=[str(one) for one in choose.some(self.ids, 30)],
            permissions=choose.one([PERMISSIONS, *[choose.some(PERMISSIONS, 60)] * 2]),
            claims={"k": jsonable(choose.one([*self.ids, 1.0]))} if choose.chance(70) else {},
            sources=choose.one([None, None, choose.some(ORIGINS, 70)]),
            expires_at=expires[choose.one([""] * 16 + ["future"] * 3 + ["past"])],
        )
        return Viewer(context, seen(context))

    @property
    def tenants(self) -> list[Any]:
        return [*self.ids[:1] * 5, self.ids[-1], None]

    # ---- requests ----

    def request(self, of: Declaration) -> Request:
        choose = self.choose
        self.fragments = {}
        name = model.named(of.ref)
        root = Picked(of.name, alias=choose.one(["", "", "alias"]), below=self.selections(name, 1))
        root.below += self.marks(name)
        made = Request(of, root, {each: self.given(each, input_) for each, input_ in of.arguments.items()}, {})
        made.arguments = model.arguments(self.rules, made)
        Writer(made, choose.one(["", "", "inline", "named"]), self.fragments).write()
        return made

    def marks(self, name: str) -> list[Picked | Fragment]:
        """What tells events and calls apart, wherever it may be seen."""
        marks: list[Picked | Fragment] = [Picked("n"), Picked("told")]
        of = self.types[name]
        return marks if of.members else [Fragment(one, [], list(marks)) for one in of.behind or ()]

    def selections(self, name: str, depth: int) -> list[Picked | Fragment]:
        return [self.selection(name, depth) for _ in range(self.choose.integer(1, 4 if depth == 1 else 3))]

    def selection(self, name: str, depth: int) -> Picked | Fragment:
        choose, of = self.choose, self.types[name]
        how = choose.integer(0, 9)
        if how == 9 or (not of.members and depth > 3):
            return Picked("__typename", choose.one(["", "kind"]), self.flags())
        if (how > 6 or not of.members) and depth < 4:
            return self.fragment(name, depth)
        picked = choose.one(list(of.members))
        ref = of.members[picked].ref
        below = model.named(ref)
        if below in self.types and depth > 2:
            return Picked("n", flags=self.flags())
        # Fields under one key must have one type.
        alias = choose.one(["", "", f"{picked}1"]) if ref == self.refs[picked] else f"{picked}{name}"
        return Picked(picked, alias, self.flags(), self.selections(below, depth + 1) if below in self.types else [])

    def fragment(self, name: str, depth: int) -> Fragment:
        choose = self.choose
        mine = [one.name for one in model.concrete(self.types, name)]
        near = [one for one in self.known() if {each.name for each in model.concrete(self.types, one)} & set(mine)]
        used = [one for one in self.fragments.values() if one.on in near]
        if used and choose.chance(30):
            one = choose.one(used)
            return dataclasses.replace(one, flags=self.flags())
        on = choose.one([*near, None])
        below = self.selections(on or name, depth + 1)
        if on is None or choose.chance(70):
            return Fragment(on, self.flags(), below)
        made = Fragment(on, self.flags(), below, f"F{len(self.fragments)}")
        self.fragments[f"F{len(self.fragments)}"] = made
        return made

    def known(self) -> list[str]:
        """The types of the schema: code first, a union is there where something leads to it."""
        refs = [one.ref for type_ in self.types.values() for one in type_.members.values()]
        used = {model.named(ref) for ref in [*refs, *(one.ref for one in self.declared)]}
        return [
            name for name, one in self.types.items() if one.behind is None or not self.is_code_first or name in used
        ]

    def flags(self) -> list[Flag]:
        choose = self.choose
        if not choose.chance(15):
            return []
        conditions: list[bool | str] = [True, False, "yes", "no"]
        return [Flag(choose.one(["include", "skip"]), choose.one(conditions))]

    def given(self, name: str, input_: Input) -> Any:
        """The value of an argument as the document writes it."""
        how = self.choose.integer(0, 9)
        if how < 1:
            return ABSENT
        return self.value(name, input_.ref, is_literal=True) if how < 6 else self.variable(name, input_.ref)

    def variable(self, name: str, ref: str) -> Variable:
        """One that is given, one that is not and has a default, or one that is not there at all."""
        choose, made = self.choose, Variable(f"{name}{self.choose.integer(0, 9999)}", ref)
        if choose.chance(30):
            made.ref, made.default = ref.removesuffix("!"), self.value(name, ref)
        if (made.default is ABSENT and ref.endswith("!")) or choose.chance(75):
            made.given = self.value(name, made.ref if made.default is ABSENT else ref)
        return made

    def value(self, name: str, ref: str, *, is_literal: bool = False) -> Any:
        """As GraphQL writes it, with GraphQL's names; variables may stand in a literal's object."""
        choose = self.choose
        if not ref.endswith("!") and choose.chance(8):
            return None
        of = model.item(ref)
        if of is not None:
            if choose.chance(10):
                return self.value(name, of.removesuffix("!") + "!", is_literal=is_literal)
            return [self.value(name, of, is_literal=is_literal) for _ in range(choose.one([1, 1, 2, 0]))]
        named = model.named(ref)
        if named in INPUTS:
            fields = choose.some(list(INPUTS[named]), 60)
            return {camel(each): self.part(each, INPUTS[named][each].ref, is_literal) for each in fields}
        if named == "ID":
            return jsonable(choose.one([*self.tenants[:-1], "a"]))
        if named == "UUID":
            return choose.one([str(KEY), str(KEY).upper()])
        return choose.one([1, 1, 2]) if named == "Int" else choose.one(["a", "b", "a:b", "a\tb"])

    def part(self, name: str, ref: str, is_literal: bool) -> Any:
        is_variable = is_literal and self.choose.chance(20)
        return self.variable(name, ref) if is_variable else self.value(name, ref, is_literal=is_literal)

    # ---- events ----

    def event(self, n: int, channels: list[str]) -> Published:
        choose = self.choose.block(24)
        tenant = ALL_TENANTS if choose.chance(12) else choose.one([*self.tenants, choose.one([None, *IDS])])
        image = {**choose.one(self.trees), **self.image(choose), "n": n}
        return Published(
            choose.one(["x", "x", *EVENT_TYPES]),
            choose.one([*channels, "c", "c"]),
            image,
            tenant,
            choose.one([None, "s", "s", *ORIGINS]),
            self.image(choose) if choose.chance(30) else None,
            choose.one(["data", "text", "many"]),
        )

    def image(self, choose: Chooser) -> dict[str, Any]:
        """What predicates look at."""
        values = [*map(jsonable, self.ids * 3), 1, 1.0, None, ["a"], True]
        image = {key: choose.one(values) for key in choose.some(["a", "b"], 90)}
        return image | ({"o": {"a": choose.one(values)}} if choose.chance(60) else {})

    def make_trees(self) -> None:
        self.trees = [self.tree(0) for _ in range(2)]

    def tree(self, depth: int) -> dict[str, Any]:
        """What any object may be read of."""
        choose = self.choose
        kids = [self.tree(depth + 1) for _ in range(choose.integer(0, 2))] if depth < 2 else []
        behind = self.types[self.abstract[0]].behind if self.abstract else None
        tree: dict[str, Any] = {"n": depth, "label": choose.one(["", "b"]), "the_total": 1, "tags": ["t"], "kids": kids}
        tree["child"] = self.tree(depth + 1) if depth < 2 and choose.chance(60) else None
        return tree | ({"__typename": choose.one(behind)} if behind else {})


def snake(name: str) -> str:
    return {"theTotal": "the_total"}.get(name, name)


# ---- documents ----


class Writer:
    """Writes a request as GraphQL, a line for each selection: then it is known where each stands."""

    def __init__(self, request: Request, wrapping: str, fragments: dict[str, Fragment]) -> None:
        self.request, self.wrapping, self.fragments = request, wrapping, fragments
        self.lines = [""]
        self.definitions: dict[str, str] = {}

    def write(self) -> None:
        request, root = self.request, [self.request.root]
        of_root = Fragment("Subscription", [], [*root], "Root" if self.wrapping == "named" else None)
        self.add([of_root] if self.wrapping else [*root], 1)
        self.lines.append("}")
        for name, fragment in (({"Root": of_root} if of_root.name else {}) | self.fragments).items():
            self.lines.append(f"fragment {name} on {fragment.on} {{")
            self.add(fragment.below, 1)
            self.lines.append("}")
        definitions = ", ".join(f"${name}: {ref}" for name, ref in self.definitions.items())
        self.lines[0] = f"subscription {f'({definitions}) ' if definitions else ''}{{"
        request.text = "\n".join(self.lines)

    def add(self, selections: list[Picked | Fragment], depth: int) -> None:
        for one in selections:
            flags = "".join(f" @{flag.directive}(if: {self.condition(flag)})" for flag in one.flags)
            if isinstance(one, Picked):
                one.place = (len(self.lines) + 1, depth + 1)
                head = f"{one.alias}: " if one.alias else ""
                head += one.name + (self.arguments() if one is self.request.root else "") + flags
            elif one.name:
                self.lines.append(f"{' ' * depth}...{one.name}{flags}")
                continue
            else:
                head = f"...{f' on {one.on}' if one.on else ''}{flags}"
            self.lines.append(" " * depth + head + (" {" if one.below else ""))
            if one.below:
                self.add(one.below, depth + 1)
                self.lines.append(" " * depth + "}")

    def condition(self, flag: Flag) -> str:
        if isinstance(flag.condition, bool):
            return str(flag.condition).lower()
        self.define(flag.condition, "Boolean!", flag.condition == "yes")
        self.request.flags[flag.condition] = flag.condition == "yes"
        return f"${flag.condition}"

    def define(self, name: str, definition: str, value: Any) -> None:
        self.definitions[name] = definition
        if value is not ABSENT:
            self.request.variables[name] = value

    def arguments(self) -> str:
        given = [(camel(name), value) for name, value in self.request.given.items() if value is not ABSENT]
        return f"({', '.join(f'{name}: {self.literal(value)}' for name, value in given)})" if given else ""

    def literal(self, value: Any) -> str:
        if isinstance(value, Variable):
            default = "" if value.default is ABSENT else f" = {self.literal(value.default)}"
            self.define(value.name, value.ref + default, value.given)
            return f"${value.name}"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{name}: {self.literal(part)}' for name, part in value.items())}}}"
        if isinstance(value, list):
            return f"[{', '.join(map(self.literal, value))}]"
        return json.dumps(value, ensure_ascii=False)
