"""Refuse queries whose answer is the same whatever stands in the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from codegym_rems.known import Known
from codegym_rems.sql_guard import TableGuard

if TYPE_CHECKING:
    from sqlglot import exp

    from codegym_rems.reading import Reading


@dataclass
class Grounded(TableGuard):
    """Refuses a query that reads no table of the example's database, or whose answer does not depend on one.

    Each SELECT whose rows come out, so each arm of a UNION, must return at least one column that depends on a table:
    one of its columns, a count or sum of its rows, or a CASE that such a thing decides. Constants do not, however they
    are wrapped: literals, functions and aggregates of them (`MAX('Yes')`), CTEs and subqueries of them, a CASE that
    constants decide or whose results are all the same. So `SELECT 'Yes' FROM medal WHERE ...` is refused; write
    `SELECT CASE WHEN COUNT(*) > 0 THEN 'Yes' ELSE 'No' END FROM medal WHERE ...`. Catalogs of the engine are no tables
    of the database. A CASE with a condition that is always true, or a count of rows that is known in advance, passes:
    against these is the run file's `[perturbation]`.

    dialect:    sqlglot's name of the dialect; default "mysql", which also reads what SQLite and MariaDB share; a text
                in double quotes is a constant in it
    max_length: longest code in characters; default 16384
    """

    deterministic: ClassVar[bool] = True

    def judge(self, code: str, known: Known | None) -> str | None:
        """Return why the code is refused, or None, from its parse."""
        from codegym_rems.cost import NESTED_TOO_DEEPLY
        from codegym_rems.dependence import Scope, arms, selected
        from codegym_rems.outputs import CONSTANT, DATA
        from codegym_rems.reading import read

        reading = read(code, self.dialect)
        if isinstance(reading, str):
            return reading
        try:
            for select, scope in arms(reading.query, Scope(known)):
                if max(selected(select, scope).levels, default=CONSTANT) < DATA:
                    return _refusal(reading, select, known)
        except RecursionError:
            return NESTED_TOO_DEEPLY
        return None


def _refusal(reading: Reading, select: exp.Select, known: Known | None) -> str:
    if not _reads_a_table(reading.query, known):
        tables = ", ".join(sorted(known.tables)[:8]) if known else ""
        return "the query reads no table of the database" + (f" {known.name}: {tables}" if known and tables else "")
    first = next(iter(select.expressions), select)
    if reading.code[first.meta.get("start", 0)] == '"':
        hint = f"in the dialect {reading.dialect_name} a text in double quotes is a constant"
    else:
        hint = "for Yes or No write CASE WHEN COUNT(*) > 0 THEN 'Yes' ELSE 'No' END"
    return f"SELECT {reading.written(first)} is refused: what it returns does not depend on a table; {hint}"


def _reads_a_table(query: exp.Query, known: Known | None) -> bool:
    from sqlglot import exp

    from codegym_rems.known import unknown_table

    named = {cte.alias.lower() for cte in query.find_all(exp.CTE)}
    return any(
        isinstance(table.this, exp.Identifier)
        and (table.db or table.name.lower() not in named)
        and not unknown_table(table.name, table.db, known)
        for table in query.find_all(exp.Table)
    )
