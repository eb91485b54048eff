"""Records the documents and schemas of graphql-core's own tests, for `test_oracle_edition.py`.

The texts are in the source distribution alone. They are recorded while its tests run, so that each document comes with
the schema that it is meant for: `tests/data/graphql_core.json.gz`. Needed again when `pyproject.toml` takes another
version, and `pytest-describe` is needed for it:

    pip download --no-binary graphql-core --no-deps graphql-core==3.3.2
    tar xf graphql_core-3.3.2.tar.gz
    cd graphql_core-3.3.2
    PYTHONPATH=<this folder> python -m pytest -p record_graphql_core --ignore tests/benchmarks tests

The texts are graphql-core's, copyright (c) GraphQL Contributors and Christoph Zwerschke, under the MIT License.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphql
from graphql.language import parser

FILE = Path(__file__).parent / "data" / "graphql_core.json.gz"

LONGEST = 4_000
"""Longer texts are floods, of which ours have tests of their own."""

documents: dict[tuple[str, str], None] = {}
schemas: dict[tuple[str, str], None] = {}
texts: dict[str, None] = {}


def source(given: Any) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, graphql.Source):
        return given.body
    return given.loc.source.body if given.loc else graphql.print_ast(given)


def document(schema: Any, given: Any, *_args: Any, **_options: Any) -> None:
    documents[graphql.print_schema(schema), source(given)] = None


def definitions(given: Any, schema: Any = None, *_args: Any, **_options: Any) -> None:
    schemas[graphql.print_schema(schema) if schema else "", source(given)] = None


def wrap(module: str, name: str, record: Callable[..., None]) -> None:
    """Everyone in graphql-core who has imported a function gets one that records what it is called with."""
    called = getattr(importlib.import_module(module), name)

    def recording(*args: Any, **options: Any) -> Any:
        # What is no schema or no document is not recorded.
        with contextlib.suppress(Exception):
            record(*args, **options)
        return called(*args, **options)

    for known in [one for key, one in sys.modules.items() if key.partition(".")[0] == "graphql"]:
        for key, value in list(vars(known).items()):
            if value is called:
                setattr(known, key, recording)


class Recording(parser.Parser):
    def __init__(self, given: Any, *args: Any, **options: Any) -> None:
        texts[source(given)] = None
        super().__init__(given, *args, **options)


def pytest_configure() -> None:
    wrap("graphql", "validate", document)
    for name in ("execute", "execute_sync", "subscribe"):
        wrap("graphql.execution", name, document)
    wrap("graphql.validation.validate", "validate_sdl", definitions)
    for name in ("build_schema", "build_ast_schema"):
        wrap("graphql", name, lambda given, *_args, **_options: definitions(given))
    wrap("graphql", "extend_schema", lambda schema, given, *_args, **_options: definitions(given, schema))
    parser.Parser = Recording  # type: ignore[misc, assignment]


def pytest_unconfigure() -> None:
    def plain(text: str) -> str:
        return textwrap.dedent(text).strip("\n")

    pairs = [[(schema, plain(text)) for schema, text in each if len(text) <= LONGEST] for each in (documents, schemas)]
    paired = {text for each in pairs for _, text in each}
    alone = {plain(text) for text in texts if len(text) <= LONGEST} - paired
    known = sorted({schema for each in pairs for schema, _ in each})
    index = {schema: at for at, schema in enumerate(known)}
    numbered = [sorted({(index[schema], text) for schema, text in each}) for each in pairs]
    recorded = {
        "version": graphql.__version__,
        "licence": "MIT License, copyright (c) GraphQL Contributors and Christoph Zwerschke",
        "schemas": known,
        "documents": numbered[0],
        "definitions": numbered[1],
        "texts": sorted(alone),
    }
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_bytes(gzip.compress(json.dumps(recorded, indent=0).encode(), mtime=0))
