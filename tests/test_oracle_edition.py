"""Documents and schemas of graphql-core's own tests: all that those parse, validate, execute or build, judged by both.

`record_graphql_core.py` says where the texts come from. Their documents are queries and mutations for the most part,
which are not served here. So a schema gets a subscription type whose fields give its root types, and each operation
becomes a subscription that selects one of them: `query Q { a }` is `subscription Q { query { a } }`, for both.
Documents of subscriptions alone are judged as they are.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import graphql

from fraiseql_subs import GraphQLRequestError, Limits, Schema, SchemaError, SubscriptionManager, subscription

from .oracle import running

RECORDED: dict[str, Any] = json.loads(
    gzip.decompress((Path(__file__).parent / "data" / "graphql_core.json.gz").read_bytes())
)
LIMITS = Limits(max_query_depth=1_000, max_query_fields=100_000, max_query_aliases=100_000, max_query_tokens=100_000)
ROOT = "Judged"


class Difference(NamedTuple):
    """Verdicts that are not the same: what each says (nothing: it is valid), and how many texts it is about."""

    reason: str
    theirs: str
    ours: str
    texts: int


def compare(verdicts: Iterable[tuple[str, str, str]], known: list[Difference], least: int) -> None:
    """Each text with both verdicts; those that differ are in the list, and nothing is in the list in vain."""
    judged, found, unknown = 0, dict.fromkeys(known, 0), []
    for text, theirs, ours in verdicts:
        judged += 1
        if bool(theirs) == bool(ours):
            continue
        reasons = [one for one in known if re.search(one.theirs, theirs) and re.search(one.ours, ours)]
        if len(reasons) == 1:
            found[reasons[0]] += 1
        else:
            unknown.append(f"{text}\ngraphql-core: {theirs or 'valid'}\nhere: {ours or 'valid'}")
    assert not unknown, "\n\n".join(unknown)
    assert found == {one: one.texts for one in known}
    assert judged >= least


def parsed(text: str) -> graphql.DocumentNode | None:
    try:
        return graphql.parse(text)
    except graphql.GraphQLSyntaxError:
        return None


class Roots(graphql.Visitor):
    """Each operation becomes a subscription that selects its root type."""

    def leave_operation_definition(self, node: graphql.OperationDefinitionNode, *_: Any) -> Any:
        name = graphql.NameNode(value=node.operation.value)
        field = graphql.FieldNode(name=name, arguments=(), directives=(), selection_set=node.selection_set)
        return graphql.OperationDefinitionNode(
            operation=graphql.OperationType.SUBSCRIPTION,
            name=node.name,
            variable_definitions=node.variable_definitions,
            directives=node.directives,
            selection_set=graphql.SelectionSetNode(selections=(field,)),
        )


def functions_of(fields: Iterable[str]) -> list[Callable[..., Any]]:
    def declare(field: str) -> Callable[..., Any]:
        @subscription(channel="c", name=field)
        def declared() -> None: ...

        return declared

    return [declare(field) for field in fields]


class Judges:
    """A schema of both."""

    def __init__(self, text: str) -> None:
        self.schema = graphql.build_schema(text)
        graphql.assert_valid_schema(self.schema)
        assert self.schema.subscription_type is not None
        ours = Schema.from_sdl(text, functions_of(self.schema.subscription_type.fields))
        self.manager = SubscriptionManager(ours, limits=LIMITS)

    def theirs(self, text: str) -> str:
        document = parsed(text)
        if document is None:
            return "syntax error"
        return "; ".join(error.message for error in graphql.validate(self.schema, document))

    async def ours(self, text: str) -> str:
        """What is wrong with the document, whatever may be missing of its variables."""
        try:
            async with self.manager, self.manager.subscribe(text):
                return ""
        except GraphQLRequestError as error:
            no_fault = ("BAD_USER_INPUT", "OPERATION_RESOLUTION_FAILURE")
            return "; ".join(one["message"] for one in error.errors if one["extensions"]["code"] not in no_fault)


def is_draft(definition: graphql.DefinitionNode) -> bool:
    """Whether the draft behind September 2025 has it alone; a schema can do without."""
    if not isinstance(definition, graphql.DirectiveDefinitionNode):
        return False
    places = {place.value for place in definition.locations}
    return bool(definition.directives or places & {"FRAGMENT_VARIABLE_DEFINITION", "DIRECTIVE_DEFINITION"})


@cache
def judges(text: str, as_it_is: bool) -> Judges | None:
    """`None` where graphql-core itself makes no valid schema of it."""
    try:
        schema = graphql.build_schema(text)
        graphql.assert_valid_schema(schema)
    except (graphql.GraphQLError, TypeError):
        return None
    kept = [one for one in graphql.parse(text).definitions if not is_draft(one)]
    if as_it_is:
        return Judges(graphql.print_ast(graphql.DocumentNode(definitions=tuple(kept))))
    roots = {"query": schema.query_type, "mutation": schema.mutation_type, "subscription": schema.subscription_type}
    fields = " ".join(f"{name}: {root}" for name, root in roots.items() if root is not None)
    kept = [one for one in kept if not isinstance(one, graphql.SchemaDefinitionNode)]
    text = graphql.print_ast(graphql.DocumentNode(definitions=tuple(kept)))
    mutation = "" if schema.mutation_type is None else f"mutation: {schema.mutation_type}"
    text += f"\nschema {{ query: {schema.query_type} {mutation} subscription: {ROOT} }} type {ROOT} {{ {fields} }}"
    return Judges(text)


EMPTY = Difference(
    "graphql-core takes empty selection sets; the specification asks for a selection",
    "^$",
    "expected at least one Selection",
    4,
)
DOCUMENTS = [
    EMPTY,
    Difference(
        "deprecated directives are of the draft behind September 2025, and asked for by graphql-core's introspection",
        "^$",
        "`__Directive` does not have a field `isDeprecated`",
        37,
    ),
    Difference("a limit of ours", "^$", "More than 100 fragments", 2),
    Difference(
        "a text is the same argument, however it is quoted",
        "Fields 'field' conflict because they have differing arguments",
        "^$",
        2,
    ),
    Difference(
        "how deep introspection may go is no rule of the specification, and here that of apollo-compiler",
        "^Maximum introspection depth exceeded$",
        "^$",
        1,
    ),
]


def test_documents_have_the_verdicts_of_graphql_core() -> None:
    def verdicts() -> Iterable[tuple[str, str, str]]:
        with running() as run:
            for at, text in RECORDED["documents"]:
                document = parsed(text)
                if document is None:  # an experiment, which is switched on where it comes from
                    continue
                operations = [one for one in document.definitions if isinstance(one, graphql.OperationDefinitionNode)]
                kinds = {one.operation for one in operations}
                schema = RECORDED["schemas"][at]
                as_it_is = kinds == {graphql.OperationType.SUBSCRIPTION} and "subscription: " in schema
                both = judges(schema, as_it_is)
                if both is None:
                    continue
                if not as_it_is:
                    text = graphql.print_ast(graphql.visit(document, Roots()))
                yield text, both.theirs(text), run(both.ours(text))

    compare(verdicts(), DOCUMENTS, 1_180)


TEXTS = [
    EMPTY._replace(texts=12),
    Difference("a limit of ours", "^$", "nested deeper than 128", 5),
    Difference(
        "directives on directives are of the draft behind September 2025",
        "^$",
        "expected Directive Locations|expected valid Directive Location",
        20,
    ),
]


def test_texts_are_documents_for_both_or_for_none() -> None:
    @subscription(channel="c", name="judged")
    def judged() -> None: ...

    manager = SubscriptionManager(Schema.from_sdl("type Subscription { judged: Int }", [judged]), limits=LIMITS)

    async def ours(text: str) -> str:
        try:
            async with manager, manager.subscribe(text):
                return ""
        except GraphQLRequestError as error:
            messages = [one["message"] for one in error.errors]
            return "; ".join(message for message in messages if re.search("^syntax error|nested deeper", message))

    texts = RECORDED["texts"] + [text for kind in ("documents", "definitions") for _, text in RECORDED[kind]]

    def verdicts() -> Iterable[tuple[str, str, str]]:
        with running() as run:
            for text in texts:
                yield text, "" if parsed(text) else "syntax error", run(ours(text))

    compare(verdicts(), TEXTS, 2_000)


DEFINITIONS = [
    Difference(
        "directives on directives are of the draft behind September 2025",
        "^$",
        "expected Directive Locations|expected valid Directive Location",
        11,
    ),
    Difference("fragments are no type system", "^$", "must not contain a fragment definition", 1),
    Difference("the specification forbids it", "^$", "`foo` directive definition cannot reference itself", 1),
    # What follows closes nothing: who breaks it has a schema all the same.
    Difference("Federation's subgraphs extend what others define", "Cannot extend type 'Missing'", "^$", 1),
    Difference("apollo-compiler does not ask it", "cannot be deprecated", "^$", 2),
    Difference("apollo-compiler does not ask it", "must not be deprecated", "^$", 1),
    Difference("mutations are not served", "Mutation root type must be Object type", "^$", 1),
    Difference("such an argument can be given to nobody", "cannot be provided a finite value", "^$", 5),
]


ROOTS = {"query": "Query", "mutation": "Mutation", "subscription": "Subscription"}


def probed(text: str, document: graphql.DocumentNode) -> str:
    """A schema with a subscription field of ours, and a query type, which may be left out here."""
    given: dict[str, str] = {}
    names = {one.name.value for one in document.definitions if isinstance(one, graphql.TypeDefinitionNode)}
    for one in document.definitions:
        if isinstance(one, (graphql.SchemaDefinitionNode, graphql.SchemaExtensionNode)):
            given |= {root.operation.value: root.type.name.value for root in one.operation_types or ()}
    is_explicit = any(isinstance(one, graphql.SchemaDefinitionNode) for one in document.definitions)
    implicit = {} if is_explicit else {kind: name for kind, name in ROOTS.items() if name in names}
    roots = {**implicit, **given}
    if "subscription" in roots:
        text += f"\nextend type {roots['subscription']} {{ judged: Boolean }}"
    for kind, field in (("subscription", "judged"), ("query", "_empty")):
        if kind not in roots:
            name = ROOT + ROOTS[kind] if is_explicit else ROOTS[kind]
            text += f"\ntype {name} {{ {field}: Boolean }}"
            text += f"\nextend schema {{ {kind}: {name} }}" if is_explicit else ""
    return text


def test_schemas_have_the_verdicts_of_graphql_core() -> None:
    def theirs(text: str) -> str:
        try:
            graphql.assert_valid_schema(graphql.build_schema(text))
        except (graphql.GraphQLError, TypeError) as error:
            return str(error) or "wrong"
        return ""

    def ours(text: str) -> str:
        try:
            Schema.from_sdl(text, functions_of(["judged"]), partial=True)
        except SchemaError as error:
            return str(error)
        return ""

    def verdicts() -> Iterable[tuple[str, str, str]]:
        for at, text in RECORDED["definitions"]:
            base = RECORDED["schemas"][at]
            text = f"{base}\n{text}"
            document = parsed(text)
            text = text if document is None else probed(text, document)
            yield text, theirs(text), ours(text)

    compare(verdicts(), DEFINITIONS, 700)
