"""The guard `no_select_star`: what it refuses, that its short cut lets nothing past it, and that nothing stops it."""

import json
import random
import re
import sqlite3
import subprocess
import sys
from itertools import chain

import pytest
from pydantic import TypeAdapter, ValidationError

from codegym import Example, Execution, Rollout
from codegym_rems import ExactMatch, NoSelectStar, Rems
from codegym_rems.guard import read
from codegym_rems.plain import is_plain

EXAMPLE = Example("sample/0", "Who?", "2012, 2016", "sample")

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
    "SELECT 1 WHERE (year * x": "cannot be read as SQL",
    "SELECT year * year year year FROM medal": "cannot be read as SQL: Invalid expression",
    "SELECT x * DATE_ADD(year) FROM medal": "cannot be read as SQL: an argument is missing or misplaced",
    "SELECT x * 'unterminated": "cannot be read as SQL",
    "SELECT year FROM medal PROCEDURE ANALYSE()": "cannot be read as SQL",
    "SELECT " + "(" * 65 + "1" + ")" * 65: "brackets are nested more than 14 deep",
    "SELECT " + "(" * 4000 + "1" + ")" * 4000: "brackets are nested",
    "SELECT " + "DATE(" * 30 + "1" + ")" * 30: "0 joins and 8 nested calls are too many: reading them takes too long",
    "SELECT " + "SORT_ARRAY(1, " * 30 + "1" + ")" * 30: "brackets are nested more than 14 deep",
    "SELECT MAX(ABS(ROUND(1))) FROM a" + " JOIN b" * 12: "12 joins and 3 nested calls",
    "SELECT 1 FROM a" + " JOIN b" * 13: "13 joins are more than the limit of 12",
    "SELECT " + "NOT " * 4000 + "1": "nested too deeply",
    "SELECT x * " + "- IF " * 40 + "1": "0 joins and 40 nested calls are too many",
    "SELECT " + "FROM a, LATERAL (" * 30 + "2 * 1" + ")" * 30: "0 joins and 8 nested calls are too many",
    "SELECT x * " + "f()." * 4000: "nested calls are too many",
    "SELECT x * " + "UNION ARRAY " * 40 + "1": "nested calls",
    "SELECT 2 * " + "CASE WHEN 1 THEN " * 200 + "1": "nested too deeply",
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


def medals():
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE medal (medal_id, type, year, location)")
    database.execute("INSERT INTO medal VALUES (1, 'Gold', 2012, 'Rio')")
    return database


# The short cut: what plainly has no star is not parsed

PLAIN = [
    "SELECT year FROM medal",
    "\n  select year from medal where location = 'Malmö' ;\n",
    "SELECT COUNT(*) FROM medal",
    "SELECT CASE WHEN COUNT(*)>1 THEN 'Yes' ELSE 'No' END FROM medal",
    "WITH x AS (SELECT year FROM medal) SELECT MAX(year) - MIN(year) FROM x",
    "SELECT ROUND(COUNT(*) * 100.0 / (2 * SUM(year))), '2 * 3) * 4' FROM medal WHERE location = 'Pinto'",
    "SELECT name FROM athlete JOIN tournament USING (athlete_id) JOIN format USING (tournament_id) JOIN medal"
    " USING (format_id) WHERE (athlete.name = 'Ada Lind') AND (medal.year IN (SELECT MAX(year) FROM medal))",
]
UNREADABLE = [
    "SELECT year FROM medal WHERE",
    "SELECT year year year FROM medal",
    "SELECT DATE_ADD(year) FROM medal",
    "SELECT 'unterminated",
    "SELECT 1 +",
    "SELECT year FROM medal)",
    "WITH x AS (SELECT 1) FROM x",
    "SELECT 1 FROM (FROM medal) AS x",
]


@pytest.mark.parametrize("code", PLAIN)
def test_a_query_without_a_star_is_not_parsed(code):
    assert is_plain(code)
    assert read(code, "mysql") is None


@pytest.mark.parametrize(
    "code",
    [
        *(code for code in REFUSED if "cannot be read" not in REFUSED[code] and len(code) < 16_384),
        "SELECT 1 -- COUNT(\n*) FROM medal",
        "SELECT JSON_COUNT(*) FROM medal",
        "SELECT xCOUNT(*), yearCOUNT(*) FROM medal",
        "SELECT @COUNT(*) FROM medal",
        "SELECT year /*1 ' 1*/, m.* FROM medal m WHERE 1 /*1 ' 1*/",
        "SELECT 2 * m.* FROM medal m",
        "SELECT year INTO@x FROM medal",
        "SELECT 1INTO @x FROM medal",
        "SELECT '\\', ' FROM medal",
        "SELECT year\0 FROM medal",
        "ſELECT year FROM medal",
        "(SELECT year FROM medal)",
    ],
)
def test_what_may_be_refused_is_parsed(code):
    assert not is_plain(code)


@pytest.mark.parametrize("code", UNREADABLE)
def test_what_no_engine_can_read_is_left_to_the_engine_and_earns_as_little_as_a_refusal(code):
    assert NoSelectStar().check(code, EXAMPLE) is None
    refusal = read(code, "mysql")
    assert refusal is not None
    with pytest.raises(sqlite3.Error) as caught:
        medals().execute(code)
    refused = Rollout(EXAMPLE, code, code, refusal=refusal)
    failed = Rollout(EXAMPLE, code, code, execution=Execution(error="OperationalError", message=str(caught.value)))
    for reward in (Rems(), Rems(overlap="recall"), ExactMatch()):
        assert reward.score(refused) == reward.score(failed)
        assert reward.metrics(refused) == reward.metrics(failed)


WORDS = re.findall(
    r"\S+",
    """
    SELECT FROM WHERE AND OR NOT IN ( ( ) ) , , . * COUNT(*) COUNT( *) ; ' " ` -- # /* */ + - = year medal m x 1 [ ] { }
    'a' '*' ';' JOIN ON USING UNION ALL EXCEPT WITH AS DISTINCT CASE WHEN THEN ELSE END EXISTS BETWEEN LIKE GROUP BY
    ORDER HAVING LIMIT OFFSET OVER VALUES TABLE INTO DELETE INSERT UPDATE REPLACE IF CAST INTERVAL NULL IS @x := COLUMNS
    EXTRACT TRIM(FROM )* 2* *2 RECURSIVE NATURAL FOR LOCK PROCEDURE RETURNING medal.year type location medal_id \\
    """,
)
TOKEN = re.compile(r"\w+|\s+|.", re.DOTALL)
UNREAD = ("cannot be read", "is not a query", "nested too deeply", "takes too long", "more than the limit")


def mutations(count):
    """Yield texts made of the guard's examples, cut, spliced and sprinkled with words that matter to SQL."""
    chance = random.Random(3)
    parts = [TOKEN.findall(code) for code in chain(REFUSED, ALLOWED, PLAIN, UNREADABLE) if len(code) < 400]
    for _ in range(count):
        tokens = list(chance.choice(parts if chance.random() < 0.4 else parts[-40:]))
        if chance.random() < 0.3:
            other = chance.choice(parts)
            tokens = tokens[: chance.randint(0, len(tokens))] + other[chance.randint(0, len(other)) :]
        for _ in range(chance.randint(0, 4)):
            place = chance.randint(0, len(tokens))
            tokens[place : place + chance.randint(0, 2)] = [chance.choice(["", " "]), chance.choice(WORDS), " "]
        yield "".join(tokens)


@pytest.mark.parametrize("dialect", ["mysql", "sqlite"])
def test_the_short_cut_passes_nothing_that_the_parser_would_refuse_for_what_it_does(dialect):
    plain = [code for code in mutations(12_000) if is_plain(code)]
    assert len(plain) > 2000
    refused = {code: reason for code in plain if (reason := read(code, dialect)) is not None}
    for code, reason in refused.items():
        if not any(word in reason for word in UNREAD):
            # Only sqlglot reads a query that begins with FROM, or BETWEEN *2; engines do not.
            assert "it returns every column" in reason, code
            with pytest.raises(sqlite3.OperationalError, match=r"syntax error|unrecognized token"):
                medals().execute(code)


def test_sqlite_returns_no_row_of_all_columns_for_what_takes_the_short_cut():
    database = medals()
    answered = 0
    for code in mutations(12_000):
        if not is_plain(code):
            continue
        try:
            rows = database.execute(code).fetchall()
        except (sqlite3.Error, sqlite3.Warning):
            continue
        answered += 1
        for row in rows:
            named = all(column in code.lower() for column in ("medal_id", "type", "location", "year"))
            assert named or not {1, "Gold", 2012, "Rio"} <= set(row), code
    assert answered > 300


# Other dialects, where a whole row is a value

WHOLE_ROWS = [
    "SELECT m FROM medal m",
    "SELECT medal FROM medal",
    "SELECT MEDAL FROM sample.medal",
    'SELECT "M" FROM medal AS "M"',
    "SELECT to_json(m) FROM medal m",
    "SELECT m::text FROM medal m",
    "SELECT (m)::text FROM medal m",
    "SELECT ROW(m) FROM medal m",
    "SELECT ARRAY(SELECT m FROM medal m)",
    "SELECT (SELECT m) FROM medal m",
    "SELECT m.row_to_json FROM medal m",
    "SELECT json_agg(m ORDER BY year) FROM medal m",
    "SELECT x FROM medal m, row_to_json(m) AS j(x)",
    "SELECT x FROM medal m CROSS JOIN LATERAL (SELECT m) AS y(x)",
    "SELECT json_each FROM json_each('{}')",
    "SELECT b FROM (a JOIN b ON true)",
    "SELECT 1 UNION SELECT m FROM medal m",
    "WITH x AS (SELECT 1 AS y) SELECT x FROM x",
    "SELECT CASE WHEN true THEN m END FROM medal m",
]
NO_WHOLE_ROWS = [
    "SELECT COUNT(m) FROM medal m",
    "SELECT year FROM medal m WHERE m IS NOT NULL ORDER BY m",
    "SELECT format.format FROM format",
    "SELECT year, format FROM (SELECT m.year, format.name AS format FROM medal m JOIN format USING (format_id)) AS x",
    "WITH format AS (SELECT 1 AS year) SELECT year FROM format JOIN medal USING (year)",
]


@pytest.mark.parametrize("dialect", ["postgres", "duckdb"])
def test_whole_rows_are_refused_where_they_are_values(dialect):
    for code in WHOLE_ROWS:
        assert "is refused: it returns a whole row" in str(NoSelectStar(dialect=dialect).check(code, EXAMPLE)), code
    for code in NO_WHOLE_ROWS:
        assert NoSelectStar(dialect=dialect).check(code, EXAMPLE) is None, code


@pytest.mark.parametrize("dialect", ["mysql", "sqlite"])
def test_a_dialect_without_whole_rows_says_which_backends_need_another(dialect):
    assert NoSelectStar(dialect=dialect).check("SELECT athlete FROM athlete", EXAMPLE) is None
    (finding,) = NoSelectStar(dialect=dialect).findings()
    assert finding.level == "note"
    assert "set dialect to 'postgres' or 'duckdb'" in finding.text
    assert not list(NoSelectStar(dialect="postgres").findings())


def test_a_column_named_like_its_source_is_no_row_in_sqlite_where_refusing_it_would_be_wrong():
    code = "WITH total AS (SELECT COUNT(*) AS total FROM medal) SELECT total FROM total"
    assert medals().execute(code).fetchall() == [(1,)]
    assert NoSelectStar().check(code, EXAMPLE) is None


@pytest.mark.parametrize(
    ("dialect", "code", "reason"),
    [
        ("duckdb", "FROM medal", "begins with 'FROM'"),
        ("duckdb", "(FROM medal)", "SELECT * is refused"),
        ("duckdb", "SELECT 1 UNION FROM medal", "SELECT * is refused"),
        ("duckdb", "SELECT COLUMNS('.*') FROM medal", "COLUMNS(...) is refused: it returns every column"),
        ("duckdb", "SELECT COLUMNS(c -> true) FROM medal", "COLUMNS(...)"),
        ("duckdb", "SELECT main.medal FROM main.medal", "main.medal is refused: it returns a whole row"),
        ("duckdb", "SELECT m.to_json() FROM medal m", "it returns a whole row"),
        ("duckdb", "SELECT year FROM query('FROM ' || 'medal')", "QUERY(...) is refused: it runs a text as a query"),
        ("duckdb", "(SUMMARIZE medal)", "not a query"),
        ("postgres", "TABLE medal", "begins with 'TABLE'"),
        ("postgres", "SELECT query_to_xml('TABLE medal', true, false, '')", "QUERY_TO_XML(...) is refused: it runs"),
        ("postgres", 'SELECT u&"\\006d" FROM medal m', 'u&" is refused'),
    ],
)
def test_other_ways_to_every_column_are_refused(dialect, code, reason):
    assert reason in str(NoSelectStar(dialect=dialect).check(code, EXAMPLE))


# Nothing stops the parser

REPEATED = r"""
NOT |- |~|! |+ |CASE WHEN |CASE WHEN 1 THEN 1 ELSE |INTERVAL |1 BETWEEN 1 AND |1+|1 AND |1=|1 IN (1) OR |1 LIKE |a||
1 UNION SELECT |1 EXCEPT SELECT |a.|a, |x -> |@a := |ARRAY |ANY |_utf8 |- IF |IF + |1 UNION ARRAY |ARRAY UNION |JOIN a |
LEFT JOIN a ON |STRAIGHT_JOIN a |DATE(|SORT_ARRAY(1, |(|(SELECT |EXISTS (SELECT |CAST(|IF(1, |[|{|a AS (SELECT 1), |
WITH a AS (SELECT 1) |CAST(1 AS |STRUCT<|a::int, |a COLLATE b, |'|"|`|/* |{{ |$$ |U&'|
FROM a, LATERAL (|f().|FROM BINARY, (|FROM FORCE AS, (|UNION (|VALUES 1 LIMIT (|
1 LIMIT (|'a' TIMESTAMP : UNNEST |EXISTS (|ASOF :: JOIN FROM
""".replace("\n", "").split("|")
TIMED = """
import json, sys, time
from codegym_rems.guard import read
slowest = 0.0
for dialect, code in json.load(sys.stdin):
    began = time.process_time()
    read(code, dialect)
    if time.process_time() - began > slowest:
        slowest = time.process_time() - began
        print(f"{slowest:.3f}", dialect, code[:60], flush=True)
"""


def test_no_repetition_crashes_the_parser_or_takes_it_a_second():
    codes = [
        (dialect, (begin + unit * min(count, 16_000 // len(unit or " ")) + "1")[:16_384])
        for dialect in ("mysql", "postgres")
        for begin in ("SELECT ", "SELECT year FROM medal ")
        for unit in REPEATED
        for count in (12, 40, 16_384)
    ]
    read_all = subprocess.run(
        [sys.executable, "-c", TIMED], input=json.dumps(codes), text=True, capture_output=True, timeout=120, check=False
    )
    assert read_all.returncode == 0, read_all.stderr[-500:]
    assert float(read_all.stdout.splitlines()[-1].split()[0]) < 1, read_all.stdout.splitlines()[-1]


def test_odd_code_prints_no_warning_of_the_parser():
    odd = "SELECT JSON_EXTRACT(a, '?') FROM t"
    told = subprocess.run(
        [sys.executable, "-c", f"from codegym_rems.guard import read; print(read({odd!r}, 'mysql'))"],
        text=True,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert (told.stdout, told.stderr) == ("None\n", "")
