"""The guard `allowed_sql`: what it lets pass, what it refuses and why, and that right queries pass all guards."""

import sqlite3

import pytest
from pydantic import TypeAdapter, ValidationError

from codegym import Database, Example
from codegym_rems import AllowedSql, Grounded, NoSelectStar
from codegym_temptabqa import TemptabqaSample

SCHEMA = """
CREATE TABLE athlete (athlete_id INTEGER PRIMARY KEY, name VARCHAR(255) NOT NULL);
CREATE TABLE medal (medal_id INTEGER PRIMARY KEY, athlete_id INTEGER, type VARCHAR(16), year INTEGER, location TEXT)
"""
GAMES = Database("games", SCHEMA, {"athlete": [(1, "Ada Lind")], "medal": [(1, 1, "Gold", 2012, "Rio")]})
EXAMPLE = Example("games/0", "Who?", "2012, 2016", "games")

FOLDS = "it folds many values into one cell"
MAKES = "it makes values that no table holds"
SESSION = "it tells of the session, not of the data"
VARIABLE = "variables and parameters are not read"
REFUSED = {
    "SELECT GROUP_CONCAT(year) FROM medal": f"GROUP_CONCAT(...) in line 1, column 8 is refused: {FOLDS}",
    "SELECT\n year, group_concat ( type ) FROM medal": f"GROUP_CONCAT(...) in line 2, column 8 is refused: {FOLDS}",
    "SELECT CONCAT_WS(' ', year, type) FROM medal": FOLDS,
    "SELECT JSON_ARRAYAGG(year) FROM medal": FOLDS,
    "SELECT JSON_OBJECT('a', year) FROM medal": FOLDS,
    "SELECT STRING_AGG(type, ',') FROM medal": FOLDS,
    "SELECT year -> '$.a' FROM medal": "-> in line 1, column 13 is refused: JSON is not among the kinds of SQL",
    "SELECT year FROM (VALUES (1), (2)) AS v (year)": f"VALUES(...) in line 1, column 19 is refused: {MAKES}",
    "SELECT year FROM medal, json_each('[1]')": f"JSON_EACH(...) in line 1, column 25 is refused: {MAKES}",
    "SELECT year FROM JSON_TABLE('[1]', '$[*]' COLUMNS (year INT PATH '$')) AS t": MAKES,
    "SELECT year FROM medal, generate_series(1, 9)": MAKES,
    "SELECT REPEAT(type, 9), year FROM medal": MAKES,
    "SELECT seq FROM seq_1_to_9 JOIN medal": "seq_1_to_9 in line 1, column 17 is refused: it is a generator of",
    "SELECT name FROM sqlite_master": "sqlite_master in line 1, column 18 is refused: it is a catalog of the engine",
    "SELECT year FROM medal WHERE year IN (SELECT 1 FROM information_schema.tables)": "it is a catalog of the engine",
    "SELECT 1 FROM (WITH sqlite_master AS (SELECT 1) SELECT 1 FROM sqlite_master) AS x": "a catalog of the engine",
    "SELECT user FROM mysql.user": "mysql.user in line 1, column 18 is refused: it is a catalog",
    "SELECT year FROM medals": "medals in line 1, column 18 is refused: it is no table of the database games",
    "SELECT year FROM elsewhere.medal": "elsewhere.medal in line 1, column 18 is refused: it is no table",
    "SELECT year, USER() FROM medal": f"USER(...) in line 1, column 14 is refused: {SESSION}",
    "SELECT VERSION(), DATABASE(), year FROM medal": SESSION,
    "SELECT LAST_INSERT_ID(), year FROM medal": SESSION,
    "SELECT CURRENT_USER, year FROM medal": f"CURRENT_USER in line 1, column 8 is refused: {SESSION}",
    "SELECT year FROM medal WHERE type = current_user": SESSION,
    "SELECT @x, year FROM medal": f"@ in line 1, column 8 is refused: {VARIABLE}",
    "SELECT @x := year FROM medal": VARIABLE,
    "SELECT @@version, year FROM medal": f"@@ in line 1, column 8 is refused: {VARIABLE}",
    "SELECT year FROM medal WHERE year = ?": "PLACEHOLDER is not among the kinds of SQL that are allowed",
    "SELECT year FROM medal WHERE SLEEP(5)": "SLEEP(...) in line 1, column 30 is refused: it only makes",
    "SELECT BENCHMARK(1000, year) FROM medal": "it only makes the engine wait",
    "SELECT LOAD_FILE(type) FROM medal": "it reads the machine",
    "SELECT RAND(), year FROM medal": "it answers differently each time",
    "SELECT year FROM medal ORDER BY RANDOM()": "it answers differently each time",
    "SELECT FROBNICATE(year) FROM medal": "FROBNICATE(...) in line 1, column 8 is refused: it is not among the allowed",
    "SELECT `sleep`(5), year FROM medal": "SLEEP(...) in line 1, column 8",
    "SELECT games.sleep(5), year FROM medal": "SLEEP(...) in line 1, column 14",
    "SELECT SQL_NO_CACHE sleep(5) FROM medal": "SLEEP(...) in line 1, column 21",
    "SELECT year FROM medal FOR UPDATE": "FOR UPDATE is refused: LOCK is not among the kinds of SQL that are allowed",
    "SELECT year FROM medal LOCK IN SHARE MODE": "LOCK is not among the kinds",
    "SELECT year FROM medal FOR SYSTEM_TIME ALL": "VERSION is not among the kinds",
    "SELECT _latin1'a', year FROM medal": "INTRODUCER is not among the kinds",
    "SELECT 1 INTO @x": "INTO inside a query is refused",
    "SELECT year FROM medal PROCEDURE ANALYSE()": "cannot be read as SQL",
    "SELECT NEXT VALUE FOR counter": "cannot be read as SQL",
    "SET STATEMENT max_statement_time = 0 FOR SELECT year FROM medal": "the code begins with 'SET'",
    "SHOW TABLES": "the code begins with 'SHOW'",
    "SELECT 1; DELETE FROM medal": "more than one statement",
}
ALLOWED = [
    "SELECT DISTINCT name, COUNT(*), COUNT(DISTINCT type), SUM(year), AVG(year), MIN(year), MAX(year) FROM medal"
    " JOIN athlete USING (athlete_id) GROUP BY name HAVING COUNT(*) > 1 ORDER BY 2 DESC, name LIMIT 3 OFFSET 1",
    "SELECT ROUND(CAST(year AS REAL) / 3, 2), CAST(type AS CHAR(10)), CAST(year AS DECIMAL(10, 2)) FROM medal",
    "SELECT COALESCE(year, 0), IFNULL(year, 0), NULLIF(year, 0), IIF(year > 0, 1, 2), IF(year > 0, 1, 2) FROM medal",
    "SELECT LENGTH(type), SUBSTR(type, 1, 2), SUBSTRING(type, 2), UPPER(type), LOWER(type), TRIM(BOTH 'x' FROM type),"
    " REPLACE(type, 'o', 'a'), CONCAT(type, ' ', year), type || year, LEFT(type, 1), INSTR(type, 'o') FROM medal",
    "SELECT DATE('2012-01-01'), STRFTIME('%Y', location), YEAR(location), JULIANDAY('now') - JULIANDAY(location),"
    " DATEDIFF(NOW(), location), DATE_ADD(location, INTERVAL 1 DAY), EXTRACT(YEAR FROM location), CURRENT_DATE,"
    " TIMESTAMPDIFF(YEAR, location, CURDATE()), location + INTERVAL 1 YEAR FROM medal",
    "SELECT ROW_NUMBER() OVER (PARTITION BY type ORDER BY year), RANK() OVER w, LAG(year, 1) OVER (ORDER BY year),"
    " SUM(year) OVER (ORDER BY year ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM medal"
    " WINDOW w AS (ORDER BY 1)",
    "WITH x (a, b) AS (SELECT year, type FROM medal), y AS (SELECT a FROM x) SELECT a FROM y, x WHERE b > a",
    "WITH RECURSIVE n (i) AS (SELECT MIN(year) FROM medal UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT i FROM n",
    "SELECT year FROM medal UNION SELECT year FROM medal EXCEPT SELECT 2012 INTERSECT SELECT year FROM medal",
    "SELECT x.a FROM (SELECT year FROM medal) AS x (a) LEFT JOIN (medal AS m JOIN athlete USING (athlete_id)) ON a = 1",
    "SELECT type FROM MEDAL AS m WHERE (type, year) IN (SELECT type, MAX(year) FROM games.medal GROUP BY type)",
    "SELECT CASE WHEN EXISTS (SELECT * FROM medal WHERE year = 2012) THEN 'Yes' ELSE 'No' END FROM dual",
    "SELECT year DIV 10, year MOD 4, year % 4, -year, NOT year, year <=> 1, year << 1, year & 1, year XOR 1 FROM medal",
    "SELECT year FROM medal WHERE type LIKE 'G%' ESCAPE '!' AND type NOT IN ('a', 'b') AND year BETWEEN 1 AND 2"
    " AND type REGEXP '^G' AND location IS NOT NULL OR NOT (year = 3 AND type <> 'x')",
    "SELECT type, COUNT(*) FROM medal GROUP BY type WITH ROLLUP",
    "SELECT type COLLATE utf8mb4_bin, BINARY type, CONVERT(type USING utf8mb4), X'41', N'a' FROM medal",
    "SELECT STD(year), VAR_POP(year), GREATEST(year, 1), LEAST(year, 2), POWER(year, 2), SQRT(year) FROM medal",
    "SELECT 'GROUP_CONCAT(year)', year AS \"sleep(5)\" FROM medal -- @x INTO sqlite_master",
]


def guard(**settings):
    prepared = AllowedSql(**settings)
    prepared.prepare([GAMES])
    return prepared


@pytest.mark.parametrize("code", REFUSED)
def test_the_guard_refuses_and_says_which_construct_where_and_why(code):
    refusal = guard().check(code, EXAMPLE)
    assert refusal is not None
    assert REFUSED[code] in refusal
    assert "\n" not in refusal


@pytest.mark.parametrize("code", ALLOWED)
def test_the_guard_allows_what_queries_need(code):
    assert guard().check(code, EXAMPLE) is None


def test_further_functions_are_a_setting_in_any_case():
    allowing = guard(functions=("group_concat", "Json_Each", "CURRENT_USER"))
    assert allowing.check("SELECT GROUP_CONCAT(year) FROM medal", EXAMPLE) is None
    assert allowing.check("SELECT year, current_user FROM medal, json_each('[1]')", EXAMPLE) is None
    assert allowing.check("SELECT CONCAT_WS(' ', year) FROM medal", EXAMPLE) is not None
    settings = TypeAdapter(AllowedSql).validate_python({"functions": ["json_each"]})
    assert settings.functions == ("json_each",)
    with pytest.raises(ValidationError, match="valid tuple"):
        TypeAdapter(AllowedSql).validate_python({"functions": "json_each"})


@pytest.mark.parametrize(
    ("dialect", "code", "reason"),
    [
        ("postgres", "SELECT year::text, year FROM public.medal", None),
        ("postgres", "SELECT DATE_TRUNC('year', location::date), TO_CHAR(location::date, 'YYYY') FROM medal", None),
        ("postgres", "SELECT DISTINCT ON (type) pg_sleep(5), year FROM medal", "PG_SLEEP(...) in line 1, column 27"),
        ("postgres", "SELECT STRING_AGG(type, ',') FROM medal", FOLDS),
        ("postgres", "SELECT ARRAY[year, 1] FROM medal", "an array folds many values into one cell"),
        ("postgres", "SELECT ARRAY(SELECT year FROM medal)", FOLDS),
        ("postgres", "SELECT x FROM generate_series(1, 9) AS g (x)", MAKES),
        ("postgres", "SELECT relname FROM pg_class", "pg_class in line 1, column 21 is refused: it is a catalog"),
        ("postgres", "SELECT current_setting('x'), year FROM medal", SESSION),
        ("duckdb", "SELECT year FROM medal QUALIFY ROW_NUMBER() OVER (ORDER BY year) = 1", None),
        ("duckdb", "SELECT LIST(year) FROM medal", FOLDS),
        ("duckdb", "SELECT {'a': year} FROM medal", "a struct folds many values into one cell"),
        ("duckdb", "SELECT [year, 1] FROM medal", "an array folds"),
        ("duckdb", "SELECT MAX(year, 9) FROM medal", f"MAX(year, 9) in line 1, column 12 is refused: {FOLDS}"),
        ("duckdb", "SELECT ARG_MAX(year, type, 9) FROM medal", FOLDS),
        ("duckdb", "SELECT ARG_MAX(year, type) FROM medal WHERE (year, type) IN (SELECT year, type FROM medal)", None),
        ("duckdb", "SELECT (year, type) AS x FROM medal", FOLDS),
        ("sqlite", "SELECT MAX(year, 9) FROM medal", None),
        ("duckdb", "SELECT x FROM range(9) AS r (x)", MAKES),
        ("duckdb", "SELECT file FROM glob('*')", "GLOB(...) in line 1, column 18 is refused: it reads the machine"),
        ("duckdb", "SELECT year FROM 'medal.csv'", "it is no table of the database games"),
        ("duckdb", "SELECT table_name FROM duckdb_tables", "a catalog of the engine"),
        ("sqlite", 'SELECT "year", [type], TOTAL(year) FROM medal', None),
        ("sqlite", "SELECT load_extension('x'), year FROM medal", "it reads the machine"),
        ("sqlite", "SELECT name FROM pragma_table_info('medal')", SESSION),
        ("sqlite", 'SELECT "sqlite_version"(), year FROM medal', SESSION),
    ],
)
def test_other_dialects_have_their_own_ways(dialect, code, reason):
    refusal = guard(dialect=dialect).check(code, EXAMPLE)
    assert refusal is None if reason is None else reason in str(refusal)


def test_of_a_database_that_nobody_brought_only_catalogs_and_generators_are_refused():
    stranger = Example("x/0", "Who?", "1", "elsewhere")
    assert guard().check("SELECT year FROM anything", stranger) is None
    assert "a catalog of the engine" in str(guard().check("SELECT name FROM sqlite_master", stranger))
    assert "a generator of numbers" in str(guard().check("SELECT seq FROM seq_1_to_9", stranger))


def test_a_table_of_the_database_may_have_a_catalogs_name():
    taken = Database(
        "games", "CREATE TABLE sys (year INTEGER); CREATE TABLE user (year INTEGER)", {"sys": [], "user": []}
    )
    prepared = AllowedSql()
    prepared.prepare([taken])
    assert prepared.check("SELECT sys.year FROM sys JOIN user USING (year)", EXAMPLE) is None


def test_sqlite_can_write_or_wait_for_nothing_that_is_allowed():
    connection = sqlite3.connect(":memory:")
    connection.executescript(SCHEMA)
    acts = set()
    connection.set_authorizer(lambda act, *_: acts.add(act) or sqlite3.SQLITE_OK)
    ran = 0
    for code in ALLOWED:
        try:
            connection.execute(code).fetchall()
        except sqlite3.Error:  # MariaDB's
            continue
        ran += 1
    assert ran > 5
    assert acts <= {sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


def test_every_target_of_the_sample_passes_all_guards():
    dataset = TemptabqaSample()
    guards = [NoSelectStar(), Grounded(), AllowedSql()]
    for each in guards:
        each.prepare(dataset.databases())
    targets = [(example, example.metadata["target"]) for split in dataset.splits() for example in dataset.load(split)]
    assert len(targets) > 1800
    assert not [target for example, target in targets if any(each.check(target, example) for each in guards)]
