"""Show that the sqlite backend answers queries, refuses all else, and stops what runs too long."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

import codegym
from codegym_sqlite import Sqlite, engine
from codegym_temptabqa.sample import TemptabqaSample

GAMES = codegym.Database(
    "games",
    """
    CREATE TABLE athlete (athlete_id INTEGER PRIMARY KEY, name VARCHAR(255) NOT NULL);
    CREATE TABLE medal (
        medal_id INTEGER PRIMARY KEY, athlete_id INTEGER NOT NULL, type VARCHAR(16), year INTEGER,
        FOREIGN KEY (athlete_id) REFERENCES athlete (athlete_id)
    );
    CREATE INDEX athlete_name ON athlete (name)
    """,
    {
        "athlete": [(number, f"Ada Example {number}") for number in range(100)],
        "medal": [(number, number % 100, "gold", 2000 + number % 20) for number in range(1000)],
    },
)
ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r"


@pytest.fixture
def backend():
    backend = Sqlite()
    backend.open([GAMES])
    yield backend
    backend.close()


def run(backend, code, database="games"):
    return backend.execute(code, codegym.Example("train/0", "", "", database))


def opened(*databases, **settings):
    backend = Sqlite(**settings)
    backend.open(databases or [GAMES])
    return backend


def test_a_query_gives_columns_and_rows(backend):
    code = "SELECT name, COUNT(*) AS medals FROM athlete JOIN medal USING (athlete_id) WHERE name LIKE '% 7' GROUP BY 1"
    execution = run(backend, code)
    assert execution.ok
    assert (execution.columns, execution.rows) == (("name", "medals"), (("Ada Example 7", 10),))


def test_the_query_forms_of_a_benchmark_run(backend):
    for code in (
        "WITH g AS (SELECT * FROM medal WHERE type = 'gold') SELECT year, COUNT(*) FROM g GROUP BY year",
        "SELECT year, year - LAG(year) OVER (ORDER BY year) FROM medal LIMIT 3",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM medal) UNION SELECT 2;",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT COUNT(*) FROM r",
        "SELECT DISTINCT CASE WHEN year > 2010 THEN 'Yes' ELSE 'No' END FROM medal",
        "SELECT AVG(year), SUM(year), ROUND(AVG(year), 1), GROUP_CONCAT(DISTINCT type) FROM medal",
    ):
        assert run(backend, code).ok, code


@pytest.mark.parametrize(
    "code",
    [
        "DROP TABLE medal",
        "DELETE FROM medal",
        "UPDATE medal SET type = 'silver'",
        "INSERT INTO athlete VALUES (1000, 'x')",
        "CREATE TABLE t (a)",
        "CREATE TEMP VIEW medal AS SELECT 1",
        "ATTACH ':memory:' AS other",
        "VACUUM INTO '/tmp/copy'",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "BEGIN",
        "SELECT sql FROM sqlite_master",
        "SELECT * FROM pragma_database_list",
        "SELECT load_extension('x')",
        "SELECT printf('%.*c', 999999999, 'x')",
        "SELECT hex(zeroblob(499999999))",
        "SELECT last_insert_rowid()",
    ],
)
def test_all_but_reading_is_refused(backend, code):
    execution = run(backend, code)
    assert execution.error in ("DatabaseError", "OperationalError")
    assert any(word in execution.message for word in ("not authorized", "authorization denied", "prohibited"))
    assert run(backend, "SELECT COUNT(*), MIN(type) FROM medal").rows == ((1000, "gold"),)


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("", "ProgrammingError", "the code holds no query"),
        ("  -- nothing", "ProgrammingError", "the code holds no query"),
        ("SELECT nosuch FROM medal", "OperationalError", "no such column: nosuch"),
        ("I think it is 42", "OperationalError", 'near "I": syntax error'),
        ("SELECT 1; SELECT 2", None, "You can only execute one statement at a time."),
        ("SELECT 1\0", None, "null character"),
        ("SELECT '\ud800'", "UnicodeEncodeError", "surrogates not allowed"),
        ("SELECT CAST(x'ff' AS TEXT)", "OperationalError", "Could not decode to UTF-8"),
        ("SELECT " + "(" * 400 + "1" + ")" * 400, "OperationalError", "parser stack overflow"),
        ("SELECT '" + "ä" * 50_000 + "'", "LimitExceeded", "the code is longer than 100000 bytes (max_text)"),
        ("SELECT ?", "OperationalError", "too many SQL variables"),
    ],
)
def test_wrong_code_is_an_error_of_the_code(backend, code, error, message):
    execution = run(backend, code)
    assert execution.error == (error or execution.error)
    assert execution.error
    assert message in execution.message
    assert run(backend, "SELECT 1").ok


def test_steps_stop_a_query_whatever_the_clock_says():
    backend = opened(max_steps=100_000)
    execution = run(backend, ENDLESS)
    assert (execution.error, execution.message) == ("Timeout", "the query took more than 100000 steps (max_steps)")
    assert run(backend, "SELECT 1").ok


def test_the_clock_stops_a_query_behind_the_steps():
    execution = run(opened(max_steps=10**12, time_limit=0.1), ENDLESS)
    assert (execution.error, execution.message) == (
        "Timeout",
        "the query took more than 0.1 s of CPU time (time_limit)",
    )
    assert execution.repeatable


def test_rows_and_bytes_are_cut_off():
    backend = opened(max_rows=10, max_bytes=100)
    execution = run(backend, "SELECT 1 FROM medal")
    assert (execution.truncated, execution.error, len(execution.rows), execution.ok) == (True, "", 10, False)
    assert len(run(backend, "SELECT name FROM athlete").rows) < 10
    assert run(backend, "SELECT 1 FROM medal LIMIT 10").ok


def test_a_value_that_grows_too_large_is_an_error(backend):
    execution = run(backend, "SELECT replace(group_concat(name), 'a', group_concat(name)) FROM athlete")
    assert (execution.error, execution.message) == ("LimitExceeded", "a value is longer than 100000 bytes (max_text)")


def test_lanes_do_not_share_anything():
    results = []

    def lane():
        backend = opened()
        results.extend(run(backend, f"SELECT COUNT(*) FROM medal WHERE athlete_id = {n}").rows for n in range(50))
        backend.close()

    threads = [threading.Thread(target=lane) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [((10,),)] * 200


def test_databases_are_told_apart():
    other = codegym.Database("other", "CREATE TABLE place (name VARCHAR(9))", {"place": [("Oslo",)]})
    backend = opened(GAMES, other)
    assert run(backend, "SELECT name FROM place", "other").rows == (("Oslo",),)
    assert run(backend, "SELECT name FROM place").message == "no such table: place"
    with pytest.raises(codegym.PluginError, match="names the database 'third'; opened were: 'games', 'other'"):
        run(backend, "SELECT 1", "third")


def test_values_that_sqlite_lacks_are_stored_as_text_or_numbers():
    schema = "CREATE TABLE t (d DATE, n DECIMAL(5, 2))"
    backend = opened(codegym.Database("games", schema, {"t": [(date(2020, 1, 2), Decimal("1.50"))]}))
    assert run(backend, "SELECT d, n FROM t").rows == (("2020-01-02", 1.5),)


def test_a_database_that_cannot_be_loaded_names_the_reason():
    broken = codegym.Database("broken", GAMES.schema, {"medal": [(1, 1, "gold", 2000)]})
    with pytest.raises(codegym.PluginError, match="cannot load the database 'broken': FOREIGN KEY constraint failed"):
        opened(broken)


def test_a_fault_of_the_machine_is_not_the_code_s() -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
    reply = engine.Engine(engine.Limits(1000, 1.0, 1, 1, 1000, 4096), {})._fault(error)
    with pytest.raises(codegym.BackendError, match="sqlite: disk I/O error"):
        Sqlite()._execution(tuple(reply))


def worker_process(backend: Sqlite) -> int:
    run(backend, "SELECT 1")
    return backend._worker._process._popen.pid


def test_a_query_stuck_in_one_call_costs_its_process_and_nothing_else() -> None:
    backend = opened(time_limit=0.2, max_text=1_000_000)
    tens = "'aaaaaaaaaa'"
    for _ in range(4):
        tens = f"replace({tens}, 'a', 'aaaaaaaaaa')"
    stuck = f"SELECT instr(t || t || t || t || t || t, t || t || t || 'b') FROM (SELECT {tens} AS t)"
    first = worker_process(backend)
    outcome = run(backend, stuck)
    message = "the query took more than 0.2 s of CPU time (time_limit) and was killed"
    assert (outcome.error, outcome.message, outcome.repeatable) == ("Timeout", message, True)
    assert run(backend, "SELECT COUNT(*) FROM medal").rows == ((1000,),)
    assert worker_process(backend) != first
    backend.close()


def test_a_process_that_somebody_killed_is_not_the_code_s_fault(backend) -> None:
    os.kill(worker_process(backend), signal.SIGKILL)
    assert run(backend, "SELECT COUNT(*) FROM medal").rows == ((1000,),)


def test_many_queries_are_answered_in_order_around_one_that_is_stopped() -> None:
    backend = opened(max_steps=100_000)
    codes = ["SELECT 1", ENDLESS, "SELECT 2", "nonsense", "SELECT 3"]
    example = codegym.Example("train/0", "", "", "games")
    executions = list(backend.execute_many([(code, example) for code in codes]))
    assert [execution.error or execution.rows[0][0] for execution in executions] == [
        1,
        "Timeout",
        2,
        "OperationalError",
        3,
    ]
    backend.close()


@pytest.mark.parametrize(
    ("code", "repeatable"),
    [
        ("SELECT COUNT(*) FROM medal", True),
        ("SELECT nosuch FROM medal", True),
        ("SELECT date('now')", False),
        ("SELECT CURRENT_DATE", False),
        ("SELECT strftime('%Y')", False),
        ("SELECT 1 WHERE 2 > (SELECT JULIANDAY('now'))", False),
        ("SELECT name AS date FROM athlete WHERE name <> 'time'", True),
    ],
)
def test_what_reads_the_clock_is_not_repeatable(backend, code, repeatable) -> None:
    assert run(backend, code).repeatable is repeatable


def test_lanes_share_the_serialized_database_and_not_its_process() -> None:
    first, second = opened(), opened()
    assert first._held[0] is second._held[0]
    assert worker_process(first) != worker_process(second)
    first.close()
    assert run(second, "SELECT COUNT(*) FROM medal").rows == ((1000,),)
    second.close()


def test_databases_that_leave_no_memory_to_queries_are_told_at_once() -> None:
    large = codegym.Database("large", "CREATE TABLE t (a TEXT)", {"t": [("x" * 1_000_000,)] * 12})
    with pytest.raises(codegym.ConfigError, match="want 22 MiB, and memory_mb is 16: raise it"):
        opened(large, memory_mb=16)


def test_what_only_the_clock_stopped_may_be_another_s_fault() -> None:
    late = Sqlite()._execution(codegym.Killed("wall", "it took longer than 60 s by the clock"))
    assert (late.error, late.repeatable) == ("Timeout", False)
    assert late.message.endswith("by the clock (10 times time_limit, and 10 s)")


def test_two_lanes_at_once_do_not_disturb_each_other_s_limits() -> None:
    strict, patient = opened(max_steps=20_000), opened()
    counting = ENDLESS.replace("FROM r)", "FROM r WHERE n < 20000)")
    outcomes: dict[str, set[str]] = {"strict": set(), "patient": set()}

    def lane(name: str, backend: Sqlite) -> None:
        outcomes[name].update(run(backend, counting).error for _ in range(20))
        backend.close()

    threads = [threading.Thread(target=lane, args=pair) for pair in (("strict", strict), ("patient", patient))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {"strict": {"Timeout"}, "patient": {""}}


def test_a_closed_backend_leaves_no_process() -> None:
    backend = opened()
    pid = worker_process(backend)
    backend.close()
    assert not Path("/proc", str(pid)).exists()


def test_a_run_that_is_killed_leaves_no_process() -> None:
    code = """
import codegym, time
from codegym_sqlite import Sqlite
backend = Sqlite()
backend.open([codegym.Database("d", "CREATE TABLE t (a INT)", {"t": [(1,)]})])
backend.execute("SELECT a FROM t", codegym.Example("x/0", "", "", "d"))
print(backend._worker._process._popen.pid, flush=True)
time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(owner.stdout.readline())
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 5
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        # Whoever inherited it may be slow to bury it.
        return Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def test_what_holds_is_found_out_by_trying() -> None:
    backend = opened(max_steps=1_000_000)
    [finding] = backend.protections()
    assert finding.level == "note"
    assert finding.text.startswith("sqlite refuses or stops: writing, files, settings, extensions, the schema tables")
    assert backend.probe()
    backend.close()


def test_a_query_that_eats_memory_is_stopped_and_is_its_own_fault() -> None:
    dataset = TemptabqaSample()
    example = codegym.Example("test/0", "", "", dataset.databases()[0].name)
    names = "SELECT group_concat(a.name) AS names FROM athlete a, (SELECT 1 FROM athlete LIMIT 20)"
    hog = f"SELECT length(x) FROM (SELECT names || medal_id AS x FROM ({names}), medal, format ORDER BY x) LIMIT 1"
    backend, other = Sqlite(memory_mb=64), Sqlite()
    for lane in (backend, other):
        lane.open(dataset.databases())
    stopped = backend.execute(hog, example)
    assert (stopped.error, stopped.message) == ("LimitExceeded", "the query took more than 64 MiB (memory_mb)")
    for lane in (backend, other):
        assert lane.execute("SELECT COUNT(*) > 0 FROM medal", example).rows == ((1,),)
        lane.close()
