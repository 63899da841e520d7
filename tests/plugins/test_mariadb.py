"""Show on a real server that the mariadb backend is read-only, stops what runs too long, and outlives its server."""

from __future__ import annotations

import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

import codegym
from codegym_mariadb import Mariadb, server

if not importlib.util.find_spec("MySQLdb") or server.missing_programs():
    REASON = "mysqlclient or mariadbd is not installed: pip install 'codegym[mariadb]', apt-get install mariadb-server"
    if os.environ.get("CI"):
        pytest.fail(REASON, pytrace=False)
    pytest.skip(REASON, allow_module_level=True)


SCHEMA = """
CREATE TABLE athlete (athlete_id INTEGER PRIMARY KEY, name VARCHAR(255) NOT NULL, born DATE);
CREATE TABLE medal (
    medal_id INTEGER PRIMARY KEY, athlete_id INTEGER NOT NULL, type VARCHAR(16), year INTEGER,
    FOREIGN KEY (athlete_id) REFERENCES athlete (athlete_id)
);
CREATE INDEX athlete_name ON athlete (name)
"""
GAMES = codegym.Database(
    "games",
    SCHEMA,
    {
        "athlete": [(number, f"Ada Example {number}", date(1980, 1, 2)) for number in range(100)],
        "medal": [(number, number % 100, "gold", 2000 + number % 20) for number in range(1000)],
    },
)
OTHER = codegym.Database("other", "CREATE TABLE secret (answer VARCHAR(9))", {"secret": [("forty-two",)]})
COUNT = "SELECT COUNT(*) FROM medal"
LOOP = "BEGIN NOT ATOMIC LOOP DO 1; END LOOP; END"
ENDLESS = "SELECT COUNT(*) FROM medal a, medal b, medal c WHERE a.year + b.year + c.year = 1"


def opened(*databases, **settings):
    backend = Mariadb(**{"time_limit": 0.5, **settings})
    try:
        backend.open(databases or [GAMES, OTHER])
    except codegym.CodegymError:
        backend.close()
        raise
    return backend


def alone(*databases, number=itertools.count(5000), **settings):
    """A backend with settings, and so a server, that no other test shares."""
    return opened(*databases, max_rows=next(number), **settings)


def run(backend, code, database="games"):
    return backend.execute(code, codegym.Example("train/0", "", "", database))


def administrator(backend):
    """A connection that sees the whole server."""
    station = backend._station
    return closing(station.address.connect(station._administrator()))


def rows(connection, sql):
    cursor = connection.cursor()
    cursor.execute(sql)
    return cursor.fetchall()


def running(backend):
    """The statements that run in the server now, but for this one."""
    with administrator(backend) as connection:
        found = rows(connection, "SELECT info FROM information_schema.processlist WHERE command = 'Query'")
    return [row for row in found if "processlist" not in row[0]]


@pytest.fixture(scope="module")
def backend():
    backend = opened()
    yield backend
    backend.close()


def test_importing_the_plugin_imports_no_driver():
    code = """
import sys, codegym_mariadb
list(codegym_mariadb.codegym_backends()["mariadb"]().findings())
print("MySQLdb" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_query_gives_columns_and_rows(backend):
    code = "SELECT name, COUNT(*) AS medals FROM athlete JOIN medal USING (athlete_id) WHERE name LIKE '% 7' GROUP BY 1"
    execution = run(backend, code)
    assert execution.ok
    assert (execution.columns, execution.rows) == (("name", "medals"), (("Ada Example 7", 10),))


def test_values_are_plain_python_ones(backend):
    code = "SELECT NULL, 1, 1.50, SUM(year), 'ä€😀', x'ff00', MAX(born) FROM medal JOIN athlete USING (athlete_id)"
    expected = (None, 1, Decimal("1.50"), Decimal(2_009_500), "ä€😀", b"\xff\x00", date(1980, 1, 2))
    assert run(backend, code).rows == (expected,)


def test_text_compares_as_in_sqlite_unless_a_collation_says_otherwise(backend):
    assert run(backend, "SELECT COUNT(*) FROM medal WHERE type = 'GOLD'").rows == ((0,),)
    other = opened(GAMES, collation="utf8mb4_general_ci")
    assert run(other, "SELECT COUNT(*) FROM medal WHERE type = 'GOLD'").rows == ((1000,),)
    other.close()


def test_names_of_tables_and_aliases_compare_without_case():
    backend = opened(codegym.Database("Games", SCHEMA.replace("medal", "Medal"), {"Medal": [], "athlete": []}))
    assert run(backend, "SELECT M.year FROM MEDAL m JOIN Athlete a ON A.athlete_id = m.athlete_id", "Games").ok
    backend.close()


@pytest.mark.parametrize(
    "code",
    [
        "DROP TABLE medal",
        "DELETE FROM medal",
        "UPDATE medal SET type = 'silver'",
        "INSERT INTO athlete VALUES (1000, 'x', NULL)",
        "CREATE TABLE t (a INT)",
        "CREATE TEMPORARY TABLE t (a INT)",
        "LOCK TABLES medal READ",
        "SELECT 1 INTO OUTFILE '/tmp/out'",
        "SELECT 1 /*! INTO OUTFILE '/tmp/out' */",
        "LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE athlete",
        "CREATE USER evil@localhost",
        "SET PASSWORD = PASSWORD('x')",
        "SET GLOBAL max_connections = 1",
        "SHUTDOWN",
        "PREPARE s FROM 'SELECT 1'",
    ],
)
def test_all_but_reading_is_refused(backend, code):
    assert run(backend, code).error in ("OperationalError", "ProgrammingError")
    assert run(backend, "SELECT COUNT(*), MIN(type) FROM medal").rows == ((1000, "gold"),)


@pytest.mark.parametrize("table", ["secret", "{other}.secret", "{own}.codegym_load", "mysql.user", "seq_1_to_9"])
def test_nothing_but_the_tables_of_the_database_can_be_read(backend, table):
    names = {name: backend._station.provide(database, 0).name for name, database in (("own", GAMES), ("other", OTHER))}
    execution = run(backend, f"SELECT * FROM {table.format(**names)}")
    assert "1142: SELECT command denied" in execution.message
    visible = run(backend, "SELECT table_name FROM information_schema.tables WHERE table_schema LIKE 'codegym%'")
    assert sorted(visible.rows) == [("athlete",), ("medal",)]


@pytest.mark.parametrize(
    "code",
    [
        "SELECT SLEEP(60)",
        ENDLESS,
        "SET STATEMENT max_statement_time = 0 FOR SELECT SLEEP(60)",
        LOOP,
        "SELECT BENCHMARK(10000000000, SHA2('a', 512))",
    ],
)
def test_what_runs_too_long_is_stopped_in_the_server(backend, code):
    execution = run(backend, code)
    assert (execution.error, execution.message) == ("Timeout", "the query took longer than 0.5 s (time_limit)")
    # A killed thread of the server needs a moment to end.
    deadline = time.monotonic() + 1
    while running(backend) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running(backend) == []
    assert run(backend, COUNT).rows == ((1000,),)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r) SELECT COUNT(*) FROM r", "1931: "),
        ("SELECT LENGTH(GROUP_CONCAT(a.name, b.name)) FROM athlete a, athlete b", "1260: "),
        ("SELECT LENGTH(REPEAT('a', 1000000))", "1301: "),
        ("SELECT COUNT(*) FROM medal a, medal b, medal c, medal d", "1104: "),
        ("SELECT '" + "x" * 40_000 + "'", "the code has 40009 bytes, the limit is 32768 (max_text)"),
    ],
)
def test_an_answer_that_a_limit_spoilt_is_none(backend, code, message):
    execution = run(backend, code)
    assert (execution.error, execution.rows) == ("LimitExceeded", ())
    assert execution.message.startswith(message)


def test_rows_and_bytes_are_cut_off_and_the_rest_is_not_read():
    backend = opened(GAMES, max_rows=10, max_bytes=300)
    execution = run(backend, "SELECT a.medal_id FROM medal a, medal b")
    assert (execution.truncated, execution.error, len(execution.rows), execution.ok) == (True, "", 10, False)
    assert execution.seconds < 0.4
    assert len(run(backend, "SELECT REPEAT('x', 100) FROM athlete").rows) == 3
    assert run(backend, "SELECT medal_id FROM medal LIMIT 10").ok
    backend.close()


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("", "OperationalError", "1065: Query was empty"),
        ("-- nothing", "ProgrammingError", "the code is not a query: it has no result"),
        ("SELECT nosuch FROM medal", "OperationalError", "1054: Unknown column 'nosuch' in 'SELECT'"),
        ("I think it is 42", "ProgrammingError", "1064: You have an error in your SQL syntax"),
        ("SELECT 1; SELECT 2", "ProgrammingError", "1064: You have an error in your SQL syntax"),
        ("BEGIN NOT ATOMIC SELECT 1; SELECT 2; END", "ProgrammingError", "the code has more than one result"),
        ("SET @x = 1", "ProgrammingError", "the code is not a query: it has no result"),
        ("SELECT 1\0", "ProgrammingError", "the code contains a NUL character"),
        ("SELECT '\ud800'", "UnicodeEncodeError", "'utf-8' codec can't encode"),
        ("KILL CONNECTION_ID()", "OperationalError", "1927: Connection was killed"),
        ("KILL QUERY CONNECTION_ID()", "OperationalError", "1317: Query execution was interrupted"),
    ],
)
def test_wrong_code_is_an_error_of_the_code(backend, code, error, message):
    execution = run(backend, code)
    assert execution.error == error
    assert execution.message.lower().startswith(message.lower())
    assert run(backend, COUNT).rows == ((1000,),)


@pytest.mark.parametrize(
    ("poison", "probe", "clean"),
    [
        ("SET @x = 42", "SELECT @x", None),
        ("SELECT @x := 42", "SELECT @x", None),
        ("SELECT 42 INTO @x", "SELECT @x", None),
        ("SET sql_mode = 'ANSI_QUOTES'", 'SELECT "a"', "a"),
        ("SET autocommit = 0", "SELECT @@autocommit", 1),
        ("BEGIN", "SELECT @@in_transaction", 0),
        ("SELECT GET_LOCK('x', 0)", "SELECT IS_USED_LOCK('x')", None),
        ("USE information_schema", COUNT, 1000),
        ("SET time_zone = '+09:00'", "SELECT @@time_zone", "+00:00"),
        ("SET max_statement_time = 0", "SELECT @@max_statement_time", Decimal("0.5")),
        ("SET character_set_results = ucs2", "SELECT 'a'", "a"),
        ("SELECT LAST_INSERT_ID(42)", "SELECT LAST_INSERT_ID()", 0),
    ],
)
def test_nothing_of_one_rollout_is_seen_by_the_next(backend, poison, probe, clean):
    run(backend, poison)
    assert run(backend, probe).rows == ((clean,),)


def test_a_dead_server_is_not_the_code_s_fault_and_comes_back():
    backend = alone(GAMES)
    assert run(backend, COUNT).rows == ((1000,),)
    backend._station._server.kill()
    with pytest.raises(codegym.BackendError, match="mariadb: 20"):
        run(backend, COUNT)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_a_server_that_dies_under_a_query_is_not_the_code_s_fault():
    backend = alone(GAMES, time_limit=20.0)
    threading.Timer(0.3, backend._station._server.kill).start()
    with pytest.raises(codegym.BackendError, match="2013: Lost connection"):
        run(backend, "SELECT SLEEP(10)")
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_data_that_changed_while_the_server_was_down_are_loaded_again():
    backend = alone(GAMES)
    with administrator(backend) as connection:
        rows(connection, f"DELETE FROM `{backend._station.provide(GAMES, 0).name}`.medal WHERE medal_id > 10")
    assert run(backend, COUNT).rows == ((11,),)
    backend._station._server.kill()
    with pytest.raises(codegym.BackendError):
        run(backend, COUNT)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_a_query_that_nothing_stops_costs_the_server_and_is_the_code_s_fault():
    backend = alone(GAMES)
    pid = backend._station._server._process.pid
    # As if KILL did nothing, which is so for one function call on a very large string.
    backend._station.watchdog.kill = lambda *_: True
    assert run(backend, "SET STATEMENT max_statement_time = 0 FOR SELECT SLEEP(30)").error == "Timeout"
    assert run(backend, COUNT).rows == ((1000,),)
    assert backend._station._server._process.pid != pid
    backend.close()


def test_instances_share_a_server_and_the_last_one_stops_it():
    first, second = (opened(GAMES, max_rows=4999) for _ in range(2))
    assert first._station is second._station
    process, folder = first._station._server._process, first._station._server._folder
    first.close()
    assert run(second, COUNT).rows == ((1000,),)
    second.close()
    assert process.poll() is not None
    assert not folder.exists()


def test_lanes_beside_hostile_ones_get_their_answers():
    failures = []

    def honest(lane):
        backend = opened(GAMES, time_limit=1.0)
        for number in range(100):
            execution = run(backend, f"SELECT MAX(name) FROM athlete WHERE athlete_id = {number}")
            if execution.rows != ((f"Ada Example {number}",),):
                failures.append((lane, execution))
        backend.close()

    def hostile(_lane):
        backend = opened(GAMES, time_limit=1.0)
        for victim in range(1, 12):
            run(backend, f"KILL {victim}")
        assert run(backend, "SELECT COUNT(*) FROM information_schema.processlist").rows == ((1,),)
        run(backend, "SET STATEMENT max_statement_time = 0 FOR SELECT SLEEP(60)")
        backend.close()

    threads = [threading.Thread(target=target, args=(n,)) for n, target in enumerate([honest, hostile, honest])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


OWNER = """
import os, sys, threading, time
import codegym
from codegym_mariadb import Mariadb
backend = Mariadb()
databases = [codegym.Database("d", "CREATE TABLE t (a INT)", {"t": [(1,)]})]
opening = threading.Thread(target=backend.open, args=(databases,))
opening.start()
opening.join()
assert backend.execute("SELECT a FROM t", codegym.Example("x/0", "", "", "d")).rows == ((1,),)
print(backend._station._server._process.pid, backend._station._server._folder, flush=True)
time.sleep(60)
"""


def test_a_killed_run_leaves_no_server_and_the_next_start_removes_its_folder(backend):
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    pid, folder = owner.stdout.readline().split()
    # The thread that opened has ended; the server must not have ended with it.
    time.sleep(0.2)
    assert Path("/proc", pid).exists()
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 2
    while Path("/proc", pid).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path("/proc", pid).exists()
    assert Path(folder).exists()
    alone(OTHER).close()
    assert not Path(folder).exists()
    assert run(backend, COUNT).rows == ((1000,),)


def test_without_a_server_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(server, "SYSTEM_FOLDERS", "")
    expected = "mariadb: mariadbd not found: install it (Debian: apt-get install mariadb-server), or name a server of "
    with pytest.raises(codegym.ConfigError) as caught:
        opened(GAMES)
    assert str(caught.value).startswith(expected)
    assert [finding.level for finding in Mariadb().findings()] == ["error", "error"]


def test_without_the_driver_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("codegym_mariadb._has_driver", lambda: False)
    expected = r"mariadb needs the package mysqlclient, .* pip install 'codegym\[mariadb\]'"
    with pytest.raises(codegym.MissingDependency, match=expected):
        opened(GAMES)


def test_an_account_without_a_server_is_a_mistake():
    with pytest.raises(codegym.ConfigError, match="user names an account of a server of yours; name the server too"):
        opened(GAMES, user="trainer")


def test_a_query_that_eats_memory_or_disk_is_stopped_and_the_server_lives(backend):
    for code in (
        "SELECT LENGTH(GROUP_CONCAT(DISTINCT CONCAT(a.medal_id, b.medal_id))) FROM medal a, medal b",
        "SELECT a.*, b.*, REPEAT('x', 200) FROM medal a, medal b ORDER BY a.year + b.year, a.type DESC",
    ):
        assert run(backend, code).error in ("LimitExceeded", "Timeout")
        assert run(backend, COUNT).rows == ((1000,),)


def test_a_database_that_was_not_opened_is_named(backend):
    with pytest.raises(codegym.PluginError, match="names the database 'third'; opened were: 'games', 'other'"):
        run(backend, "SELECT 1", "third")


def test_a_row_larger_than_the_limit_says_which_setting_to_raise():
    big = codegym.Database("big", "CREATE TABLE t (a TEXT)", {"t": [("x" * 20_000,)]})
    with pytest.raises(codegym.ConfigError, match=r"a row of big.t has 20000 bytes; set max_text to \d+ or more"):
        opened(big)
    backend = opened(big, max_text=128 * 1024)
    assert run(backend, "SELECT LENGTH(a) FROM t", "big").rows == ((20_000,),)
    backend.close()
