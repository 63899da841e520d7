"""What is seen of a query without running it, and of what came out of it."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from datetime import date

import pytest

from codegym import NOT_RUN, Example, Execution, Rollout, Row
from codegym_rems import ExactMatch, Rems, figures
from codegym_rems.figures import look, shape

EXAMPLE = Example("test/0", "", "2012, 2016")


def rollout(code: str, *rows: Row, error: str = "") -> Rollout:
    return Rollout(EXAMPLE, code, code, "", Execution(("n",), rows, error=error))


@pytest.mark.parametrize(
    "code",
    [
        "SELECT 'Yes'",
        "select 1 union all select 2",
        "SELECT 'FROM medal'",
        "SELECT 1 FROM (SELECT 'a') AS x",
        "SELECT EXTRACT(YEAR FROM NOW())",
        "WITH medal AS (SELECT 1 AS n) SELECT n FROM medal",
        "WITH a(n) AS (SELECT 1), b AS (SELECT n FROM a) SELECT n FROM b JOIN a USING (n)",
        "SELECT 'it''s' /* FROM medal */",
        "SELECT 1 -- FROM medal",
        "SELECT 1 -- it's\n",
        "SELECT 'it''s - FROM medal'",
        "SELECT ')', EXTRACT(YEAR FROM day)",
        "SELECT 'a' IS DISTINCT\nFROM medal",
    ],
)
def test_a_query_that_reads_no_table_is_table_free(code: str) -> None:
    assert look(code).table_free


@pytest.mark.parametrize(
    "code",
    [
        "SELECT name FROM medal",
        "SELECT 'x' FROM medal",
        "SELECT CASE WHEN COUNT(*) > 0 THEN 'Yes' ELSE 'No' END FROM `medal`",
        "SELECT year\nFROM\nmedal",
        "SELECT 1 -- it's the\nFROM medal",
        "WITH a AS (SELECT year FROM medal) SELECT year FROM a",
        "WITH a AS (SELECT 1) SELECT year FROM a, medal",
        "SELECT (SELECT MAX(year) FROM medal)",
        "SELECT EXTRACT(YEAR FROM day) FROM medal",
        "SELECT 'it''s' || name, year - 1 FROM medal WHERE TRIM(name) = 'x'",
        "no SQL FROM ' at all",
        "",
    ],
)
def test_what_reads_a_table_or_cannot_be_read_is_not(code: str) -> None:
    assert not look(code).table_free


@pytest.mark.parametrize(
    "code", ["SELECT * FROM medal", "SELECT m.* FROM medal m", "WITH a AS (SELECT * FROM b) SELECT 1"]
)
def test_a_star_is_seen_wherever_it_stands(code: str) -> None:
    assert look(code).star


@pytest.mark.parametrize(
    "code", ["SELECT COUNT(*) FROM medal", "SELECT 2 * year FROM medal", "SELECT '*' FROM medal", "SELECT * FROM"]
)
def test_what_returns_no_column_by_a_star_has_none(code: str) -> None:
    assert not look(code).star


@pytest.mark.parametrize(
    "other",
    [
        "select  NAME from MEDAL where type = 'Silver'\n",
        "SELECT `name` FROM medal WHERE type = 'Bro''nze' -- or gold",
        "SELECT name\tFROM medal WHERE type = ''",
    ],
)
def test_queries_of_one_shape_differ_in_constants_and_writing_only(other: str) -> None:
    assert shape(rollout(other)) == shape(rollout("SELECT name FROM medal WHERE type = 'Gold'"))
    assert shape(rollout(other)) == "SELECT name FROM medal WHERE type = ?"


def test_names_of_aliases_and_lengths_of_lists_are_no_part_of_a_shape() -> None:
    one = "SELECT m.year AS y FROM medal m WHERE m.type IN ('a', 'b') ORDER BY y LIMIT 3"
    two = "SELECT x.year AS z FROM medal AS x WHERE x.type IN ('c') ORDER BY z LIMIT 10"
    assert shape(rollout(one)) == shape(rollout(two))
    assert shape(rollout("SELECT year FROM medal")) != shape(rollout("SELECT type FROM medal"))


def test_code_that_did_not_run_is_not_parsed_and_its_text_is_its_shape() -> None:
    figures._shape.cache_clear()
    assert shape(rollout("SELECT  Nme FROM medal WHERE n = 5", error="OperationalError")) == (
        "select nme from medal where n = 0"
    )
    assert figures._shape.cache_info().misses == 0
    assert shape(rollout("SELEC 1")) == "selec 0"


@pytest.mark.parametrize(
    "code",
    ["(" * 3000 + "SELECT 1", "SELECT " + "-" * 9000 + "1", "SELECT '" + "x" * 200_000, "\0", "SELECT x" + ".a" * 1900],
)
def test_hostile_texts_are_looked_at_in_no_time(code: str) -> None:
    assert look(code) == figures.NOTHING or look(code).table_free
    assert len(shape(rollout(code))) <= figures.LONG


def is_sql(code: str) -> bool:
    """Tell whether SQLite finds no fault with the syntax."""
    with closing(sqlite3.connect(":memory:")) as database:
        try:
            database.execute(f"EXPLAIN {code}")
        except sqlite3.Error as error:
            return "syntax" not in str(error) and "incomplete" not in str(error)
    return True


def test_what_is_known_without_a_parse_is_what_the_parse_says(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(7)
    pieces = ["SELECT", "name", "FROM", "medal", "WITH", "a", "AS", "(", ")", ",", "'x'", "JOIN", "USING (n)", "1", "*"]
    pieces += ["COUNT(*)", "EXTRACT(YEAR FROM", "TRIM(", "UNION", "WHERE", "n = 'FROM b'", "\n", "SELECT 1", "/* b */"]
    codes = ["SELECT " + " ".join(dice.choices(pieces, k=dice.randint(2, 9))) for _ in range(3000)]
    codes += [f"WITH a AS (SELECT {one} FROM b) SELECT {two} FROM a" for one in pieces for two in pieces]
    codes = [code for code in codes if is_sql(code)]  # sqlglot also reads FROM SELECT 1
    quick = {code: look(code) for code in codes}
    figures._parsed_look.cache_clear()
    monkeypatch.setattr(figures, "_plainly_reads", lambda text: False)
    parsed = {code: figures._parsed_look.__wrapped__(figures._without_literals(code)) for code in codes}
    figures._parsed_look.cache_clear()
    assert {code: (quick[code], parsed[code]) for code in codes if quick[code] != parsed[code]} == {}
    assert sum(each.table_free for each in quick.values()) > 20


def test_parts_are_counted_against_those_of_the_answer() -> None:
    rows: list[Row] = [(2012,), (2012,), (2016,), (None,), ("  ",), (date(2020, 1, 1), None)]
    measured = Rems().metrics(rollout("SELECT year FROM medal", *rows))
    assert measured["parts_ratio"] == 1.5  # three of them say something
    assert (measured["empty_rate"], measured["table_free_rate"], measured["star_rate"]) == (0, 0, 0)


def test_an_empty_answer_is_one_that_ran() -> None:
    assert ExactMatch().metrics(rollout("SELECT year FROM medal", (None,)))["empty_rate"] == 1
    assert ExactMatch().metrics(rollout("SELECT year FROM medal"))["empty_rate"] == 1
    assert ExactMatch().metrics(rollout("SELECT year FROM medal", error="Timeout"))["empty_rate"] == 0


def test_a_refused_query_is_looked_at_too() -> None:
    refused = Rollout(EXAMPLE, "SELECT *", "SELECT * FROM medal", "SELECT * is refused", NOT_RUN)
    measured = Rems().metrics(refused)
    assert (measured["star_rate"], measured["empty_rate"], measured["parts_ratio"]) == (1, 0, 0)


def test_rewards_tell_the_shape() -> None:
    assert Rems().shape(rollout("SELECT 'Yes'")) == "SELECT ?"
