"""The reward `rems` and the guard `no_select_star`, with what people try on them."""

import csv
import datetime
import doctest
import os
import random
import sqlite3
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from codegym import Example, Execution, Rollout
from codegym_rems import ExactMatch, NoSelectStar, Rems
from codegym_rems.answers import compare, predicted_parts

REPOSITORY = Path(__file__).parents[2]
RELEASE = Path(os.environ.get("CODEGYM_DATA", REPOSITORY.parent / "shared")) / "temptabqa-c"
EXAMPLE = Example("sample/0", "Who?", "2012, 2016", "sample")
DUMP = [(number,) for number in range(2030)] + [("Yes",), ("No",)]


def rollout(answer, *rows, **execution):
    return Rollout(Example("sample/0", "Who?", answer), "", "SELECT 1", execution=Execution(rows=rows, **execution))


# What an answer is


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        ("2012, 2016", [(2016,), (2012,)]),
        ("2012, 2016", [("2012",), (2016.0,), (2012,), (None,)]),
        ("2", [(2,)]),
        ("2", [(2.0,)]),
        ("2", [(Decimal("2.0000"),)]),
        ("2.0", [("2",)]),
        ("-2", [(-2,)]),
        ("0", [(Decimal("-0.00"),)]),
        ("100000000000000000000", [(1e20,)]),
        ("0.3", [(0.1 + 0.2,)]),
        ("3", [(2.9999999999999996,)]),
        ("2.33", [(7 / 3,)]),
        ("2.33", [(Decimal("2.3333"),)]),
        ("2.33, 5", [(5,), (7 / 3,)]),
        ("Olympic Games 2012", [("Olympic Games", 2012)]),
        ("Olympic  Games", [("Olympic Games ",)]),
        ("Relay, Relay , 100 m", [("100 m",), ("Relay",)]),
        ("Łódź", [("Łódź".encode(),)]),
        ("2012-08-01", [(datetime.date(2012, 8, 1),)]),
        (" 2012,", [(2012, None)]),
    ],
)
def test_an_exact_answer_earns_everything(answer, rows):
    scores = Rems().score(rollout(answer, *rows))
    assert scores == {"executes": 1.0, "partial": 100.0, "exact": 1000.0}
    assert sum(Rems(overlap="recall").score(rollout(answer, *rows)).values()) == 1101
    assert ExactMatch().score(rollout(answer, *rows)) == 1.0


@pytest.mark.parametrize(
    ("answer", "rows"),
    [
        ("2", [(2.4,)]),
        ("2", [(Decimal("2.0001"),)]),
        ("2.33", [(2.3,)]),
        ("2.33", [(2.34,)]),
        ("2.33", [(2.331,), (2.332,)]),
        ("2", [(20,)]),
        ("2, 3", [(2,)]),
        ("2", [(2,), (3,)]),
        ("2", [(2, 2)]),
        ("2", [("2 2",)]),
        ("yes", [("Yes",)]),
        ("2012, 2016", [("2012, 2016",)]),
        ("2012, 2016", [("2012 2016",)]),
        ("1", [("True",)]),
        ("None", [(None,)]),
        ("2", []),
        ("", []),
        ("", [("",)]),
        (" , ", [(" ",)]),
        ("", [(1,)]),
    ],
)
def test_other_answers_are_not_exact(answer, rows):
    assert not compare(answer, rows).exact
    assert ExactMatch().score(rollout(answer, *rows)) == 0.0


def test_parts_are_rows_without_null_in_one_text_for_every_engine():
    rows = [("Rio", None, 2016), (None, None), ("",), (1.5,), (Decimal("1.50"),), (1e-7,), (float("inf"),), (True,)]
    assert predicted_parts(rows) == ["Rio 2016", "1.5", "1.5", "0.0000001", "Infinity", "True"]


def test_a_number_with_a_million_digits_is_text():
    assert not compare("2.33", [("9" * 1_100_000,)]).exact


# What overlap is worth


@pytest.mark.parametrize(
    ("trick", "answer", "rows", "recall", "at_most"),
    [
        ("both answers in two rows", "Yes", [("Yes",), ("No",)], 1.0, 0.67),
        ("both answers in one row", "Yes", [("Yes", "No")], 1.0, 0.67),
        ("repeated columns", "2012", [(2012, 2012, 2012, 2012)], 1.0, 0.4),
        ("repeated columns, right and wrong", "2012", [(2012, 2016, 2012, 2016)], 1.0, 0.4),
        ("repeated rows", "2012", [(2012,)] * 99 + [(1,)], 1.0, 0.67),
        ("all answers in one cell", "2012, 2016, 2020", [("2012 2016 2020",)], 1.0, 0.5),
        ("everything in one cell", "2012", [(" ".join(map(str, range(2030))),)], 1.0, 0.001),
        ("everything in one cell, commas", "2012", [(",".join(map(str, range(2030))),)], 0.0, 0.0),
        ("the gold part in each of many rows", "Gold", [("Gold", year) for year in range(99)], 1.0, 0.011),
        ("a dump of constants", "7, Yes", DUMP, 1.0, 0.002),
        ("a dump of constants in one row", "7, Yes", [tuple(cell for (cell,) in DUMP)], 1.0, 0.002),
        ("whole rows of a table", "Rio", [(i, "Gold", 2000 + i, "Rio") for i in range(30)], 1.0, 0.02),
        ("nested gold parts", "m, 100 m, Rio 100 m", [("Rio 100 m",)], 1.0, 1.0),
        ("letters of a word", "1", [("2012",)], 0.0, 0.0),
        ("another case", "yes", [("YES",)], 0.0, 0.0),
    ],
)
def test_f1_does_not_pay_for_tricks_that_recall_pays_for(trick, answer, rows, recall, at_most):
    found = compare(answer, rows)
    assert found.recall == recall
    assert found.f1 <= at_most
    assert not found.exact


def test_f1_pays_a_near_answer_in_proportion():
    assert compare("2012, 2016", [(2012,)]).f1 == pytest.approx(2 / 3)
    assert compare("Olympic Games", [("Olympic Games", 2012)]).f1 == pytest.approx(0.8)
    assert compare("2.33, 5", [(7 / 3,)]).f1 == pytest.approx(2 / 3)


def words(chance):
    return [chance.choice(["a", "b", "a b", "b a", "c", "1", "1.0", "2", "", " ", "ab", "x a y"]) for _ in range(4)]


def test_recall_is_the_definition_of_the_release_on_random_answers():
    chance = random.Random(7)
    for _ in range(5000):
        answer = chance.choice([",", ", ", " ,  "]).join(words(chance)[: chance.randint(0, 4)])
        rows = [tuple(words(chance)[: chance.randint(1, 2)]) for _ in range(chance.randint(0, 3))]
        gold = [part.strip() for part in answer.split(",") if part.strip()]
        predicted = [" ".join(row).strip() for row in rows]
        matched = sum(any(g == p or f" {g} " in f" {p} " for p in predicted) for g in gold)
        assert compare(answer, rows).recall == (matched / len(gold) if gold else 0.0)


def test_f1_is_bounded_symmetric_in_rows_and_1_for_exact_answers():
    chance = random.Random(8)
    for _ in range(5000):
        answer = ",".join(words(chance)[: chance.randint(1, 4)])
        rows = [tuple(words(chance)[: chance.randint(1, 2)]) for _ in range(chance.randint(0, 4))]
        found = compare(answer, rows)
        gold, predicted = (len(compare_set) for compare_set in (normal_set(answer.split(",")), normal_set(rows)))
        assert 0.0 <= found.f1 <= (2 * gold / (gold + predicted) if predicted else 0.0)
        assert found.f1 == 1.0 or not found.exact
        assert compare(answer, chance.sample(rows, len(rows))) == found
        assert compare(answer, rows + rows).f1 == found.f1


def normal_set(parts):
    texts = {" ".join((part if isinstance(part, str) else " ".join(part)).split()) for part in parts}
    return {"1" if text == "1.0" else text for text in texts if text}


def test_a_dump_of_constants_pays_under_recall_and_not_under_f1():
    chance = random.Random(9)
    answers = [str(chance.choice([chance.randint(0, 12), chance.randint(1960, 2024), "Yes", "No"])) for _ in range(50)]
    recall, f1 = measured(answers)
    assert recall == 1.0
    assert f1 < 0.001


@pytest.mark.skipif(
    not (RELEASE / "Test_Dataset_with_Splits/Original.tsv").exists(),
    reason="the release is not there: set CODEGYM_DATA to the folder that holds temptabqa-c",
)
def test_a_dump_of_constants_pays_77_percent_of_the_releases_metric():
    csv.field_size_limit(sys.maxsize)
    with open(RELEASE / "Test_Dataset_with_Splits/Original.tsv", newline="", encoding="utf-8") as file:
        answers = [row["Answers"] for row in csv.DictReader(file, delimiter="\t")]
    recall, f1 = measured(answers)
    assert len(answers) == 578
    assert recall == pytest.approx(0.77, abs=0.005)
    assert f1 < 0.002


def measured(answers):
    found = [compare(answer, DUMP) for answer in answers]
    return sum(one.recall for one in found) / len(found), sum(one.f1 for one in found) / len(found)


# No answer


@pytest.mark.parametrize(
    "nothing",
    [
        Rollout(EXAMPLE, "", ""),
        Rollout(EXAMPLE, "", "SELECT *", refusal="SELECT * is refused"),
        Rollout(EXAMPLE, "", "SELECT x", execution=Execution(error="OperationalError", message="no such column: x")),
        rollout("2012", (2012,), truncated=True),
    ],
)
@pytest.mark.parametrize("reward", [Rems(), Rems(overlap="recall"), Rems(error=1, executes=1), ExactMatch()])
def test_refusal_is_never_better_than_the_worst_answer(nothing, reward):
    worst = rollout("2012", ("wrong",))
    assert total(reward.score(nothing)) <= total(reward.score(worst))


def total(score):
    return sum(score.values()) if isinstance(score, dict) else score


def test_without_an_answer_there_is_only_the_error():
    assert Rems().score(Rollout(EXAMPLE, "", "SELECT *", refusal="SELECT * is refused")) == {"error": -100.0}
    assert Rems().score(rollout("2012", (2012,), truncated=True)) == {"error": -100.0}
    assert Rems().score(rollout("2012")) == {"executes": 1.0, "partial": 0.0, "exact": 0.0}


@pytest.mark.parametrize("reward", [Rems(), ExactMatch()])
def test_metrics_are_fractions_of_all_kinds_of_outcome(reward):
    right = reward.metrics(rollout("2012, 2016", (2012,), (2016,)))
    buried = reward.metrics(rollout("2012", (2012,), (2016,)))
    refused = reward.metrics(Rollout(EXAMPLE, "", "SELECT *", refusal="SELECT * is refused"))
    cut_off = reward.metrics(rollout("2012", (2012,), truncated=True))
    assert right == {"ems": 1, "rems": 1, "f1": 1, "ems_release": 1}
    assert buried == {"ems": 0, "rems": 1, "f1": pytest.approx(2 / 3), "ems_release": 1}
    assert refused == cut_off == {"ems": 0, "rems": 0, "f1": 0, "ems_release": 0}


def test_ems_of_the_release_is_not_rounded_up():
    answer = ",".join(map(str, range(400)))
    metrics = Rems().metrics(rollout(answer, *((number,) for number in range(1, 400))))
    assert round(metrics["rems"], 2) == 1.0
    assert metrics["ems_release"] == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"error": 5}, "error = 5 is more than executes = 1: a query that fails would be paid better"),
        ({"exact": -1}, "greater than or equal to 0"),
        ({"error": float("nan")}, "finite number"),
        ({"overlap": "precision"}, "'f1' or 'recall'"),
        ({"exakt": 1}, "exakt"),
    ],
)
def test_settings_that_make_no_sense_are_told(settings, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(Rems).validate_python(settings)


def test_ten_thousand_rows_are_compared_in_linear_time():
    answer = ", ".join(str(year) for year in range(2000, 2016))
    rows = [(number, "Gold", 2000 + number % 20, "Rio de Janeiro") for number in range(10_000)]
    started = datetime.datetime.now()
    compare(answer, rows)
    assert datetime.datetime.now() - started < datetime.timedelta(seconds=0.5)  # 15 ms on an idle machine


# The guard

REFUSED = {
    "SELECT * FROM medal": "SELECT * is refused: it returns every column",
    "select*from medal": "SELECT *",
    "SELECT\n\t*\nFROM medal": "SELECT *",
    "SELECT/**/*/**/FROM medal": "SELECT *",
    "SELECT -- all\n * FROM medal": "SELECT *",
    "SELECT # all\n * FROM medal": "SELECT *",
    "SELECT ALL * FROM medal": "SELECT *",
    "SELECT DISTINCT * FROM medal": "SELECT *",
    "SELECT DISTINCTROW * FROM medal": "SELECT *",
    "SELECT SQL_NO_CACHE * FROM medal": "SELECT *",
    "SELECT 1, m.* FROM medal m": "m.* is refused",
    "SELECT m . * FROM medal m": "m.*",
    "SELECT m. /* x */ * FROM medal AS m": "m.*",
    "SELECT `m`.* FROM medal AS `m`": "`m`.*",
    "SELECT sample.medal.* FROM sample.medal": "sample.medal.*",
    "SELECT (m).* FROM medal m": "(m).*",
    "WITH x AS (SELECT * FROM medal) SELECT year FROM x": "SELECT *",
    "WITH x AS (SELECT year FROM medal) SELECT * FROM x": "SELECT *",
    "WITH RECURSIVE x AS (SELECT 1 UNION SELECT * FROM x) SELECT 1 FROM x": "SELECT *",
    "SELECT year FROM (SELECT * FROM medal) AS x": "SELECT *",
    "SELECT 1 FROM (SELECT 1 FROM (SELECT m.* FROM medal m) a) b": "m.*",
    "SELECT 1 UNION SELECT * FROM medal": "SELECT *",
    "SELECT * FROM medal EXCEPT SELECT 1": "SELECT *",
    "(SELECT * FROM medal)": "SELECT *",
    "((SELECT 1) UNION ALL (SELECT * FROM medal))": "SELECT *",
    "SELECT 1 WHERE 1 IN (SELECT * FROM medal)": "SELECT *",
    "SELECT (SELECT * FROM medal LIMIT 1)": "SELECT *",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM (SELECT * FROM medal) x)": "SELECT *",
    "SELECT * FROM medal WHERE EXISTS (SELECT 1)": "SELECT *",
    "SELECT EXISTS (SELECT * FROM medal), m.* FROM medal m": "m.*",
    "SELECT COUNT(*), m.* FROM medal m": "m.*",
    "SELECT JSON_GROUP_ARRAY(*) FROM medal": "JSON_GROUP_ARRAY(*)",
    "SELECT COLUMNS(*) FROM medal": "COLUMNS(*)",
    "WITH x AS (TABLE medal) SELECT 1 FROM x": "SELECT *",
    "SELECT 1 /*! , m.* */ FROM medal m": "engines may run what stands in them",
    "SELECT 1 /*M!100100 , m.* */ FROM medal m": "engines may run",
    "SELECT /*+ x */ 1": "comments that start with",
    "SELECT 'a\\', * FROM medal -- '": "a backslash before a quote is refused",
    "SELECT year ['], * FROM medal WHERE year = [']": "[ outside a string is refused",
    "SELECT 1--'\n, * FROM medal --'": "-- without a space after it is refused",
    "SELECT 1 {# \nx year}, m.* FROM medal m -- #}\n": "{# is refused",
    "SELECT 1; SELECT 2": "more than one statement is refused",
    "SELECT 1; DROP TABLE medal": "more than one statement",
    "SELECT 1 -- x\n; SET x = 1": "more than one statement",
    "": "there is no statement",
    "-- nothing": "there is no statement",
    "DELETE FROM medal": "the code begins with 'DELETE': only a query",
    "DELETE FROM medal RETURNING *": "begins with 'DELETE'",
    "INSERT INTO medal SELECT 1": "begins with 'INSERT'",
    "SET STATEMENT max_statement_time=0 FOR SELECT 1": "begins with 'SET'",
    "PRAGMA table_info(medal)": "begins with 'PRAGMA'",
    "EXPLAIN SELECT 1": "begins with",
    "SHOW TABLES": "begins with 'SHOW'",
    "TABLE medal": "begins with 'TABLE'",
    "FROM medal": "begins with 'FROM'",
    "VALUES (1), (2)": "begins with 'VALUES'",
    "The answer is 42.": "begins with 'The'",
    "```sql\nSELECT 1\n```": "the code begins with",
    "```sql": "cannot be read as SQL",
    "(42)": "not a query",
    "WITH x AS (SELECT 1) DELETE FROM medal": "not a query",
    "WITH x AS (DELETE FROM medal RETURNING year) SELECT year FROM x": "DELETE inside a query is refused",
    "SELECT 1 INTO @x": "INTO inside a query is refused",
    "SELECT 1 INTO OUTFILE 'x'": "cannot be read as SQL",
    "SELECT year FROM medal WHERE": "cannot be read as SQL",
    "SELECT year year year FROM medal": "cannot be read as SQL: Invalid expression",
    "SELECT DATE_ADD(year) FROM medal": "cannot be read as SQL",
    "SELECT 'unterminated": "cannot be read as SQL",
    "SELECT " + "(" * 65 + "1" + ")" * 65: "brackets are nested more than 64 deep",
    "SELECT " + "(" * 4000 + "1" + ")" * 4000: "brackets are nested",
    "SELECT " + "DATE(" * 30 + "1" + ")" * 30: "0 joins and 15 nested calls are more than the limit of 14",
    "SELECT " + "SORT_ARRAY(1, " * 30 + "1" + ")" * 30: "nested calls",
    "SELECT MAX(ABS(ROUND(1))) FROM a" + " JOIN b" * 12: "12 joins and 3 nested calls",
    "SELECT 1 FROM a" + " JOIN b" * 13: "13 joins are more than the limit of 12",
    "SELECT " + "NOT " * 4000 + "1": "nested too deeply",
    "SELECT " + "1+" * 9000 + "1": "18008 characters long, more than the limit of 16384",
}

ALLOWED = [
    "SELECT year FROM medal",
    "SELECT year FROM medal;",
    "SELECT year FROM medal ; -- done",
    "SELECT COUNT(*) FROM medal",
    "SELECT COUNT( * ) AS n, year FROM medal GROUP BY year HAVING COUNT(*) > 1",
    "SELECT COUNT(*) OVER () FROM medal",
    "SELECT year FROM medal m WHERE EXISTS (SELECT * FROM format f WHERE f.format_id = m.format_id)",
    "SELECT year FROM medal m WHERE NOT EXISTS (SELECT f.* FROM format f)",
    "SELECT EXISTS (SELECT * FROM medal UNION SELECT * FROM medal)",
    "SELECT EXISTS ((SELECT * FROM medal))",
    "SELECT 2 * 3, year*2 FROM medal",
    "SELECT '*', \"*\" FROM medal WHERE location LIKE '%*%'",
    "SELECT year /* not * all */ FROM medal",
    "WITH x AS (SELECT year FROM medal) SELECT MAX(year) - MIN(year) FROM x",
    "(SELECT year FROM medal ORDER BY year LIMIT 1) UNION (SELECT 1)",
    "SELECT 1 EXCEPT SELECT 2",
    "SELECT 1 INTERSECT SELECT 2",
    "SELECT year, ROW_NUMBER() OVER (PARTITION BY type ORDER BY year) FROM medal",
    "SELECT location FROM medal WHERE location = 'O''Brien' OR location REGEXP '^[A-Z]{2}\\\\d'",
    "SELECT GROUP_CONCAT(DISTINCT year ORDER BY year SEPARATOR ' ') FROM medal",
    "SELECT CASE WHEN COUNT(*) > 0 THEN 'Yes' ELSE 'No' END FROM medal",
    "SELECT YEAR(DATE('2012-01-01')) - 5--\n",
    "SELECT a.name FROM athlete a JOIN tournament t ON a.athlete_id = t.athlete_id"
    " JOIN format f ON t.tournament_id = f.tournament_id JOIN medal m ON f.format_id = m.format_id",
    "SELECT ROUND(SUM(1)) FROM a" + " JOIN b" * 12,
]


@pytest.mark.parametrize("code", REFUSED)
def test_the_guard_refuses(code):
    refusal = NoSelectStar().check(code, EXAMPLE)
    assert refusal is not None
    assert REFUSED[code] in refusal
    assert "\n" not in refusal
    assert len(refusal) < 250


@pytest.mark.parametrize("code", ALLOWED)
def test_the_guard_allows(code):
    assert NoSelectStar().check(code, EXAMPLE) is None


def test_what_is_refused_as_misread_does_return_every_column_from_sqlite_and_what_is_allowed_does_not():
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE medal (medal_id, type, year, location)")
    database.execute("INSERT INTO medal VALUES (1, 'Gold', 2012, 'Rio')")
    misread = [
        code for code, reason in REFUSED.items() if reason.startswith(("a backslash", "[ outside", "-- without"))
    ]
    assert len(misread) == 3
    for code in [*misread, *ALLOWED]:
        try:
            rows = database.execute(code).fetchall()
        except sqlite3.Error:
            rows = []
        assert ((1, "Gold", 2012, "Rio") in {row[-4:] for row in rows}) == (code in misread)


def test_refusals_say_which_dialect_would_be_right():
    with pytest.raises(ValidationError, match="'mysq' is not a dialect that sqlglot reads: did you mean 'mysql'"):
        TypeAdapter(NoSelectStar).validate_python({"dialect": "mysq"})
    with pytest.raises(ValidationError, match=r"known are .*sqlite"):
        TypeAdapter(NoSelectStar).validate_python({"dialect": "?"})


def test_the_guard_reads_the_dialect_that_it_is_told():
    code = "SELECT [year] FROM medal"
    assert NoSelectStar(dialect="sqlite").check(code, EXAMPLE) is None
    assert NoSelectStar().check(code, EXAMPLE) is not None
    assert "SELECT *" in str(NoSelectStar(dialect="sqlite").check("SELECT * FROM [medal]", EXAMPLE))


def test_the_length_limit_is_a_setting():
    assert "9 characters long, more than the limit of 8" in str(NoSelectStar(max_length=8).check("SELECT 10", EXAMPLE))


def test_the_entry_module_does_not_import_sqlglot():
    code = "import sys, codegym_rems; sys.exit(bool({'sqlglot', 'torch', 'scipy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_worked_example_of_the_docs_prints_what_it_says():
    result = doctest.testfile(str(REPOSITORY / "docs/rewards.md"), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


# What `codegym score` says


def test_every_part_of_a_reward_is_explained():
    wrong = rollout("2012, 2016", (2012,), ("Rio",))
    assert Rems().explain(wrong) == {
        "executes": "the query ran to its end",
        "partial": "F1 0.5 of 2 predicted against 2 gold parts",
        "exact": "missing: '2016'; too much: 'Rio'",
    }
    assert Rems().explain(rollout("2012", (2012,)))["exact"] == "the same set of parts"
    assert Rems().explain(rollout("2012", error="OperationalError", message="no such table: x")) == {
        "error": "OperationalError: no such table: x"
    }
    assert Rems().explain(wrong).keys() == Rems().score(wrong).keys()
