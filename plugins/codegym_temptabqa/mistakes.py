"""Make queries wrong in the ways of a model that half knows the schema, so that there is something left to explore."""

from __future__ import annotations

import random
import re

HABITS = (
    (r"personalinformation USING \(athlete_id\) JOIN ", ""),
    (r"personalinformation\.birth_year", "athlete.birth_year"),
    (r"\blocation\b", "city"),
    (r"COUNT\(\*\) FROM athlete", "COUNT(DISTINCT medal.year) FROM athlete"),
    (r"CASE WHEN (.+?) THEN 'Yes' ELSE 'No' END", r"\1"),
)
"""What a model that half knows the schema believes.

That athletes have a birth year, that a place is called a city, that one counts years to count medals, that 1 is Yes.
"""

CONDITION = re.compile(r" AND [a-z_.]+ [=<>] (?:'(?:[^']|'')*'|\d+)")
SWAPS = (
    ("COUNT(*)", "COUNT(DISTINCT medal.year)"),
    ("COUNT(*)", "COUNT(DISTINCT format.name)"),
    ("MIN(", "MAX("),
    ("MAX(", "MIN("),
    (" DESC", ""),
    ("medal.year DESC", "medal.year"),
)
"""An aggregate or an order in place of another."""

COLUMNS = (
    ("medal.location", "tournament.name"),
    ("format.name", "tournament.name"),
    ("tournament.name", "format.name"),
    ("medal.year", "medal.location"),
    ("medal.type", "format.name"),
)
"""A column that exists in place of the right one."""

MISSPELT = (
    ("medal.location", "medal.city"),
    ("medal.location", "tournament.location"),
    ("medal.type", "medal.medal_type"),
    ("medal.type", "medal.colour"),
    ("medal.year", "tournament.year"),
    ("medal.year", "medal.date"),
    ("format.name", "format.format_name"),
    ("tournament.name", "tournament.tournament_name"),
    ("personalinformation.birth_year", "athlete.birth_year"),
    ("personalinformation.birth_year", "personalinformation.birth_date"),
    ("athlete.name", "athlete.athlete_name"),
    (" format_id", " event_id"),
)
"""A column that does not exist: an error of the database."""


def habitual(sql: str) -> str:
    """Return the query as somebody would write it who has all the habits."""
    for right, wrong in HABITS:
        sql = re.sub(right, wrong, sql)
    return sql


def replaced(sql: str, table: tuple[tuple[str, str], ...], rng: random.Random) -> str:
    """Return `sql` with one replacement of the table made throughout, or as it is if none applies."""
    fitting = [(right, wrong) for right, wrong in table if right in sql]
    return sql.replace(*rng.choice(fitting)) if fitting else sql


def without_a_condition(sql: str, rng: random.Random) -> str:
    """Return `sql` without one of its conditions, the athlete's name excepted."""
    found = list(CONDITION.finditer(sql))
    if not found:
        return sql
    dropped = rng.choice(found)
    return sql[: dropped.start()] + sql[dropped.end() :]


def mistaken(sql: str, rng: random.Random) -> str:
    """Return a query with one mistake: a dropped condition, a swapped aggregate, a wrong or a misspelt column."""
    kind = rng.random()
    if kind < 0.2:
        return without_a_condition(sql, rng)
    if kind < 0.4:
        return replaced(sql, SWAPS, rng)
    if kind < 0.55:
        return replaced(sql, COLUMNS, rng)
    return replaced(sql, MISSPELT, rng)
