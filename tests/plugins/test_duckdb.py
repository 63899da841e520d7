"""Show that the duckdb backend reads its database and nothing else, stops what runs too long, outlives its process."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

import codegym
from codegym.testing import games
from codegym_duckdb import Duckdb
from codegym_sqlite import Sqlite
from codegym_temptabqa.sample import TemptabqaSample

if not importlib.util.find_spec("duckdb"):
    REASON = "duckdb is not installed: pip install 'codegym[duckdb]'"
    if os.environ.get("CI"):
        pytest.fail(REASON, pytrace=False)
    pytest.skip(REASON, allow_module_level=True)

SCHEMA = """
CREATE TABLE athlete (athlete_id INTEGER PRIMARY KEY, name VARCHAR(255) NOT NULL, born DATE);
CREATE TABLE medal (
    medal_id INTEGER PRIMARY KEY, athlete_id INTEGER NOT NULL, type VARCHAR(16), year INTEGER,
    FOREIGN KEY (athlete_id) REFERENCES athlete (athlete_id)
);
CREATE TABLE value (value_id INTEGER PRIMARY KEY, word VARCHAR(20), price DECIMAL(8, 2), ratio DOUBLE, data BLOB);
CREATE INDEX athlete_name ON athlete (name)
"""
VALUES = [
    (1, "", Decimal("1.10"), 0.5, b"\xff\x00"),
    (2, None, None, None, None),
    (3, 'it\'s "quoted"; ,\n', Decimal("-2.00"), float("inf"), b""),
]
SMALL = codegym.Database(
    "small",
    SCHEMA,
    {
        "athlete": [(number, f"Ada Example {number}", date(1980, 1, 2)) for number in range(100)],
        "medal": [(number, number % 100, "gold", 2000 + number % 20) for number in range(1000)],
        "value": VALUES,
    },
)
OTHER = codegym.Database("other", "CREATE TABLE secret (answer VARCHAR(9))", {"secret": [("forty-two",)]})
COUNT = "SELECT COUNT(*) FROM medal"
ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r"
UNSTOPPABLE = "SELECT levenshtein(repeat('a', 200000), repeat('b', 200000))"


def opened(*databases, **settings):
    backend = Duckdb(**settings)
    backend.open(databases or [SMALL, OTHER])
    return backend


@pytest.fixture(scope="module")
def backend():
    backend = opened(time_limit=0.5)
    yield backend
    backend.close()


def run(backend, code, database="small"):
    return backend.execute(code, codegym.Example("train/0", "", "", database))


def folders():
    return set(Path(tempfile.gettempdir()).glob("*codegym_duckdb_*"))


def test_a_query_gives_columns_and_rows(backend):
    execution = run(backend, "SELECT name, name, athlete_id FROM athlete WHERE athlete_id = 7")
    assert execution.columns == ("name", "name", "athlete_id")
    assert execution.rows == (("Ada Example 7", "Ada Example 7", 7),)
    assert execution.ok
    assert execution.repeatable
    assert 0 < execution.seconds < 10


def test_what_was_loaded_comes_back_with_its_types(backend):
    assert run(backend, "SELECT * FROM value ORDER BY value_id").rows == tuple(VALUES)
    assert run(backend, "SELECT MIN(born), COUNT(*) FROM athlete").rows == ((date(1980, 1, 2), 100),)


def test_each_database_is_apart(backend):
    assert run(backend, "SELECT answer FROM secret", "other").rows == (("forty-two",),)
    assert run(backend, "SELECT answer FROM secret").error == "CatalogException"
    assert run(backend, "SELECT answer FROM other.secret").error == "CatalogException"
    with pytest.raises(codegym.PluginError, match="names the database 'nosuch'; opened were: 'other', 'small'"):
        run(backend, COUNT, "nosuch")


def test_more_databases_than_one_process_keeps_open_can_be_read():
    databases = [codegym.Database(f"d{n}", "CREATE TABLE t (n INTEGER)", {"t": [(n,)]}) for n in range(20)]
    backend = opened(*databases)
    try:
        for n in [*range(20), 0, 7, 19]:
            assert run(backend, "SELECT n FROM t", f"d{n}").rows == ((n,),)
    finally:
        backend.close()


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("SELEC 1", "ParserException", "syntax error"),
        ("SELECT nosuch FROM medal", "BinderException", "nosuch"),
        ("SELECT * FROM nosuch", "CatalogException", "does not exist"),
        ("SELECT CAST('abc' AS INTEGER)", "ConversionException", "abc"),
        ("SELECT 9223372036854775807 + 1", "OutOfRangeException", "Overflow"),
        ("", "ParserException", "the code holds no query"),
        ("-- nothing", "ParserException", "the code holds no query"),
        ("SELECT 1; SELECT 2", "PermissionException", "the code has to be one SELECT and is 2 statements"),
        ("PREPARE s AS SELECT 1", "PermissionException", "the code has to be one SELECT and is PREPARE"),
        ("PRAGMA version", "PermissionException", "the code has to be one SELECT and is PRAGMA"),
        ("SELECT 1\0", "ParserException", "NUL"),
        ("SELECT '\udcff'", "UnicodeEncodeError", "surrogates"),
        ("SELECT " + "1+" * 20_000 + "1", "LimitExceeded", "longer than 32768 bytes (max_text)"),
        ("SELECT * FROM read_text('/etc/hostname')", "PermissionException", "code may not call read_text"),
    ],
)
def test_an_error_of_the_code_keeps_its_class_and_sentence(backend, code, error, message):
    execution = run(backend, code)
    assert execution.error == error
    assert message in execution.message


def test_a_function_is_refused_where_it_is_called_and_not_where_it_is_a_name(backend):
    code = 'SELECT "query"."glob", \'read_csv\' AS checkpoint FROM (SELECT 1 AS glob) AS query'
    assert run(backend, code).rows == ((1, "read_csv"),)
    for code in ("SELECT * FROM \"GLOB\"/**/('/*')", "SELECT * FROM system.main.glob('/*')", "SELECT pg_sleep(9)"):
        assert not run(backend, code).ok


@pytest.mark.parametrize(
    "code",
    [
        "SELECT random()",
        "SELECT current_timestamp",
        "SELECT localtime",
        "SELECT age(DATE '2000-01-01')",
        "SELECT uuid()",
    ],
)
def test_an_answer_that_changes_is_not_repeatable(backend, code):
    execution = run(backend, code)
    assert execution.ok
    assert not execution.repeatable


def test_an_endless_query_is_stopped_and_its_process_lives_on(backend):
    run(backend, COUNT)
    before = run(backend, "SELECT txid_current()").rows
    execution = run(backend, ENDLESS)
    assert execution.error == "Timeout"
    assert execution.message == "the query took more than 0.5 s of CPU time (time_limit)"
    assert execution.repeatable
    assert run(backend, "SELECT txid_current()").rows > before, "a new process would begin to count anew"


def test_what_cannot_be_stopped_is_killed_and_those_behind_it_are_answered(backend):
    example = codegym.Example("train/0", "", "", "small")
    executions = list(backend.execute_many([(COUNT, example), (UNSTOPPABLE, example), (COUNT, example)]))
    assert [execution.rows for execution in executions] == [((1000,),), (), ((1000,),)]
    assert executions[1].error == "Timeout"
    assert "0.5 s of CPU time (time_limit) and was killed" in executions[1].message


def test_a_batch_gives_what_each_query_gives_alone(backend):
    example = codegym.Example("train/0", "", "", "small")
    answers = [f"SELECT {number} AS n{number}, name FROM athlete LIMIT {number % 3}" for number in range(16)]
    codes = [code for answer in answers for code in (answer, "SELECT nosuch")]
    together = list(backend.execute_many([(code, example) for code in codes]))
    alone = [backend.execute(code, example) for code in codes]
    assert [(each.columns, each.rows, each.message) for each in together] == [
        (each.columns, each.rows, each.message) for each in alone
    ]


def test_memory_is_bounded(backend):
    execution = run(
        backend, "SELECT length(string_agg(a.name || b.name || c.name)) FROM athlete a, athlete b, athlete c"
    )
    assert execution.ok  # a million names are 45 MB
    code = "SELECT length(string_agg(a.type || b.name || c.name)) FROM medal a, athlete b, athlete c"
    execution = run(backend, code)
    assert execution.error in ("LimitExceeded", "Timeout")
    assert run(backend, COUNT).rows == ((1000,),)


def test_rows_bytes_and_values_are_cut_off_and_it_is_said():
    backend = opened(max_rows=10, max_bytes=2000, max_text=1000)
    try:
        execution = run(backend, "SELECT medal_id FROM medal ORDER BY medal_id")
        assert execution.truncated
        assert execution.rows == tuple((n,) for n in range(10))
        assert not run(backend, "SELECT medal_id FROM medal LIMIT 10").truncated
        execution = run(backend, "SELECT repeat('a', 300) FROM range(8)")
        assert execution.truncated
        assert len(execution.rows) == 6
        execution = run(backend, "SELECT repeat('a', 1001)")
        assert execution.truncated
        assert execution.rows == (("a" * 1000,),)
        assert run(backend, "SELECT repeat('a', 1000)").ok
        assert run(backend, "SELECT * FROM range(1000000000000)").truncated
    finally:
        backend.close()


def test_values_of_every_type_come_as_plain_ones(backend):
    def value(expression):
        execution = run(backend, f"SELECT {expression}")
        assert execution.ok, execution.message
        return execution.rows[0][0]

    assert value("170141183460469231731687303715884105727::HUGEINT") == 2**127 - 1
    assert value("1.10::DECIMAL(5, 2)") == Decimal("1.10")
    assert str(value("'nan'::DOUBLE")) == "nan"
    assert value("true") is True
    assert value(r"'\xFF'::BLOB") == b"\xff"
    assert value("TIME '10:00'") == time(10)
    assert value("INTERVAL 14 MONTH") == timedelta(days=420)
    assert value("TIMESTAMPTZ '2020-01-01 02:00:00+02'") == datetime(2020, 1, 1, tzinfo=UTC)
    assert value("'infinity'::DATE") == date.max
    assert value("'99999-01-01'::DATE") == "99999-01-01"
    assert value("'11112222-3333-4444-5555-666677778888'::UUID") == "11112222-3333-4444-5555-666677778888"
    assert value("'a'::ENUM('a', 'b')") == "a"
    assert value("'101'::BIT") == "101"
    assert value("""'{"a": 1}'::JSON""") == '{"a": 1}'
    assert value("[1, NULL]") == "[1, None]"
    assert value("{'a': DATE '2020-01-02'}") == "{'a': datetime.date(2020, 1, 2)}"
    assert value("MAP {'k': 1}") == "{'k': 1}"


def test_nothing_is_left_for_the_next_query(backend):
    for code in (
        "SET VARIABLE x = 1",
        "CREATE TEMP MACRO sum(x) AS 42",
        "CREATE TEMP TABLE medal (n INTEGER)",
        "USE temp",
    ):
        assert run(backend, code).error == "PermissionException"
    assert run(backend, "SELECT getvariable('x'), sum(1), (SELECT COUNT(*) FROM medal)").rows == ((None, 1, 1000),)


def test_lanes_share_one_file_and_the_last_removes_it(monkeypatch):
    monkeypatch.setattr("codegym_duckdb.files._shelf", None)
    before = folders()
    first, second = opened(), opened()
    (folder,) = folders() - before
    assert sorted(file.name for file in folder.iterdir()) == ["0.duckdb", "1.duckdb"]
    assert run(first, COUNT).rows == run(second, COUNT).rows == ((1000,),)
    first.close()
    assert run(second, COUNT).rows == ((1000,),)
    second.close()
    assert folders() == before


def test_lanes_answer_at_the_same_time_from_several_threads():
    answers = []

    def ask():
        backend = opened()
        answers.extend(run(backend, f"SELECT {number} + COUNT(*) FROM medal").rows[0][0] for number in range(20))
        backend.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted([1000 + number for number in range(20)] * 4)


def test_the_files_of_a_killed_process_are_removed_by_the_next(monkeypatch):
    monkeypatch.setattr("codegym_duckdb.files._shelf", None)
    code = """
import os, codegym
from codegym_duckdb import Duckdb
backend = Duckdb()
backend.open([codegym.Database("d", "CREATE TABLE t (n INTEGER)", {"t": [(1,)]})])
print(next(iter(set(backend._files.values()))), flush=True)
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    left = Path(killed.stdout.strip())
    assert left.exists()
    backend = opened()
    try:
        assert not left.parent.exists()
    finally:
        backend.close()


def test_a_database_that_duckdb_does_not_take_is_the_datasets_fault():
    wrong = codegym.Database("wrong", "CREATE TABLE t (n INTEGER)", {"t": [("x",)]})
    backend = Duckdb()
    with pytest.raises(codegym.PluginError, match=r"duckdb cannot load the database 'wrong': .*x"):
        backend.open([wrong])
    backend.close()


def test_a_file_that_is_gone_is_the_machines_fault():
    backend = opened(OTHER)
    (path,) = backend._files.values()
    content = Path(path).read_bytes()
    Path(path).unlink()
    with pytest.raises(codegym.BackendError, match="duckdb: IOException"):
        run(backend, "SELECT answer FROM secret", "other")
    assert not backend.probe()
    Path(path).write_bytes(content)
    assert run(backend, "SELECT answer FROM secret", "other").rows == (("forty-two",),)
    assert backend.probe()
    backend.close()
    assert not backend.probe()


def test_a_probe_is_false_while_any_database_in_use_does_not_answer():
    backend = opened()
    path = Path(backend._files["other"])
    content = path.read_bytes()
    path.unlink()
    assert run(backend, COUNT).ok
    assert not backend.probe()
    path.write_bytes(content)
    assert backend.probe()
    backend.close()


def test_a_failed_database_is_probed_however_many_there_are():
    backend = opened(*(codegym.Database(f"d{n}", "CREATE TABLE t (n INTEGER)", {"t": [(n,)]}) for n in range(12)))
    Path(backend._files["d0"]).unlink()
    assert backend.probe()
    with pytest.raises(codegym.BackendError):
        run(backend, "SELECT n FROM t", "d0")
    assert not backend.probe()
    backend.close()


def test_a_folder_that_cannot_be_made_is_the_machines_fault_and_named(monkeypatch, tmp_path):
    blocked = tmp_path / "no_folder"
    blocked.write_text("a file")
    monkeypatch.setattr(tempfile, "tempdir", str(blocked))
    monkeypatch.setattr("codegym_duckdb.files._shelf", None)
    backend = Duckdb()
    with pytest.raises(
        codegym.BackendError, match=r"folder for its files in .*no_folder \(Not a directory\)"
    ) as caught:
        backend.open([SMALL])
    assert "TMPDIR" in str(caught.value)
    backend.close()
    assert list(tmp_path.iterdir()) == [blocked]


FULL_DISK = """
import resource, sys, tempfile
from pathlib import Path
import codegym
from codegym_duckdb import Duckdb
tempfile.tempdir = sys.argv[1]
rows = [(number, f"{number * 7919 % 10007} is a text") for number in range(100_000)]
large = codegym.Database("large", "CREATE TABLE t (n INTEGER, word VARCHAR)", {"t": rows})
small = codegym.Database("small", "CREATE TABLE t (n INTEGER)", {"t": [(1,)]})
backend = Duckdb()
resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, resource.RLIM_INFINITY))
try:
    backend.open([small, large])
except codegym.BackendError as error:
    print(error)
print(sorted(path.name for path in Path(sys.argv[1]).glob("*/*")))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
backend.close()
backend.open([large])
print(backend.execute("SELECT COUNT(*) FROM t", codegym.Example("", "", "", "large")).rows)
"""


def test_a_disk_that_takes_no_more_is_the_machines_fault_and_nothing_half_written_stays(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    told, left, rows = ran.stdout.splitlines()
    assert f"duckdb cannot write the database 'large' into {tmp_path}" in told
    assert "File too large" in told
    assert left == "['0.duckdb']"
    assert rows == "((100000,),)"


def test_the_protections_are_found_to_hold(backend):
    (finding,) = backend.protections()
    assert finding.level == "note"
    assert "reading files" in finding.text


def test_a_missing_duckdb_is_told_with_the_command_that_brings_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (finding,) = Duckdb().findings()
    assert finding.level == "error"
    assert "pip install 'codegym[duckdb]'" in finding.text
    with pytest.raises(codegym.MissingDependency, match=r"pip install 'codegym\[duckdb\]'"):
        Duckdb().open([])


def test_the_samples_own_queries_give_what_sqlite_gives():
    dataset = TemptabqaSample()
    duckdb, sqlite = Duckdb(), Sqlite()
    duckdb.open(dataset.databases())
    sqlite.open(dataset.databases())
    try:
        examples = [example for split in dataset.splits() for example in dataset.load(split)]
        assert len(examples) > 100
        for example in examples[::5]:
            code = example.metadata["target"]
            ours, theirs = duckdb.execute(code, example), sqlite.execute(code, example)
            assert ours.ok, f"{code}: {ours.message}"
            assert comparable(ours.rows) == comparable(theirs.rows), code
    finally:
        duckdb.close()
        sqlite.close()


def comparable(rows):
    """Rows without their order, which a query without ORDER BY leaves open, with numbers rounded."""
    return sorted(
        tuple(f"{cell:.6g}" if isinstance(cell, int | float | Decimal) else cell or "" for cell in row) for row in rows
    )


def test_twenty_thousand_rows_arrive():
    backend = opened(games())
    try:
        code = "SELECT COUNT(*), COUNT(DISTINCT athlete_id), SUM(year) FROM medal"
        medals = games().tables["medal"]
        expected = (len(medals), len({row[1] for row in medals}), sum(row[4] for row in medals))
        assert run(backend, code, "games").rows == (expected,)
    finally:
        backend.close()
