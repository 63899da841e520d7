"""Find what returns every column without a `*`, where a dialect has such things: whole rows, texts run as SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sqlglot import exp

from codegym_rems.reading import written

# PostgreSQL reads `m.to_json` as `to_json(m)`, for each function that takes one argument of any type.
_OF_ONE_ROW = re.compile(
    r"array_agg|concat|first_value|hash_record|jsonb?_agg|jsonb?_build_(array|object)|lag|last_value|lead|mode"
    r"|quote_(literal|nullable)|record_(out|send)|row_to_json|to_jsonb?"
)
_RUN_TEXTS = re.compile(
    r"query|query_table|ts_stat|dblink|crosstab|(query|table|cursor|schema|database)_to_xml(schema|_and_xmlschema)?"
)
_COLUMNS = frozenset({"columns", "unpack"})
_NOT_SHOWN = frozenset({"where", "group", "having", "order", "qualify", "on", "using"})


def refused_rows(query: exp.Expr) -> str | None:
    """Return what stands for every column, as a sentence that refuses it, or None."""
    # Each node with the tables that it can see, in small letters, and whether what it names can come out of its query.
    waiting: list[tuple[exp.Expr, frozenset[str], bool]] = [(query, frozenset(), True)]
    while waiting:
        node, tables, shown = waiting.pop()
        if isinstance(node, exp.Func) and (reason := _refused_call(node)):
            return reason
        if _is_row(node, tables, shown):
            row = written(node, "")[:80]
            return f"{row} is refused: it returns a whole row; name the columns that answer the question"
        inner, shown = tables, shown or isinstance(node, exp.Select)
        if isinstance(node, exp.Select):
            inner = tables.union(name.lower() for name in _sources(node) if name)
        for child in node.iter_expressions():
            # What stands in WITH does not see the tables of the query that it stands in.
            seen = tables if child.arg_key == "with_" else inner
            waiting.append((child, seen, shown and child.arg_key not in _NOT_SHOWN))
    return None


def _refused_call(call: exp.Func) -> str | None:
    name = (call.name if isinstance(call, exp.Anonymous) else call.sql_name()).lower()
    if name in ("columns", "unpack"):
        return f"{name.upper()}(...) is refused: it returns every column; name the columns that answer the question"
    if _RUN_TEXTS.fullmatch(name):
        return f"{name.upper()}(...) is refused: it runs a text as a query"
    return None


def _is_row(node: exp.Expr, tables: frozenset[str], shown: bool) -> bool:
    if isinstance(node, exp.Dot) and isinstance(node.expression, exp.Func):  # DuckDB reads m.to_json() as to_json(m)
        return node.this.name.lower() in tables
    if not isinstance(node, exp.Column):
        return False
    name, owner = node.name.lower(), node.table.lower()
    if owner and _OF_ONE_ROW.fullmatch(name):
        return True
    # `COUNT(m)` shows nothing of m. DuckDB takes `schema.medal` for a row too, nobody takes `medal.medal` for one.
    return shown and name in tables and owner not in tables and not isinstance(node.parent, exp.Count)


def _sources(node: exp.Expr) -> Iterator[str]:
    """Yield the names and aliases of the tables, derived tables and functions that a query or a table joins."""
    args = node.args
    for source in [args.get("from_"), *(args.get("joins") or ()), *(args.get("laterals") or ())]:
        inner = source.this if isinstance(source, exp.From | exp.Join) else source
        if isinstance(inner, exp.Expression):
            yield from _names(inner)


def _names(source: exp.Expr) -> Iterator[str]:
    yield source.alias_or_name
    if isinstance(source.this, exp.Func):  # a function in FROM is named after itself
        yield source.this.name if isinstance(source.this, exp.Anonymous) else source.this.sql_name()
    if isinstance(source, exp.Subquery | exp.Paren) and not isinstance(source.this, exp.Query):  # (a JOIN b)
        yield from _names(source.this)
    yield from _sources(source)
