"""Show on a real server that the mariadb backend is read-only, stops what runs too long, and outlives its server."""

from __future__ import annotations

import importlib.util
import itertools
import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, suppress
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

import MySQLdb

from codegym_mariadb.faults import Fault, fault_of

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
STUBBORN = "BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END; LOOP DO SLEEP(1); END LOOP; END"
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


def eventually(true, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


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


SLEPT = "the query took longer than 0.5 s (time_limit)"
WORKED = "the query took more than 0.5 s of the server's CPU time (time_limit)"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("SELECT SLEEP(60)", SLEPT),
        (ENDLESS, WORKED),
        ("SET STATEMENT max_statement_time = 0 FOR SELECT SLEEP(60)", SLEPT),
        ("SET STATEMENT max_statement_time = 1 FOR SET STATEMENT max_statement_time = 0 FOR SELECT SLEEP(60)", SLEPT),
        ("SELECT MASTER_GTID_WAIT('0-1-99999', 60)", SLEPT),
        (LOOP, WORKED),
        (STUBBORN, SLEPT),
        ("SELECT BENCHMARK(10000000000, SHA2('a', 512))", WORKED),
        ("SET STATEMENT max_statement_time = 0 FOR " + ENDLESS, WORKED),
    ],
)
def test_what_runs_too_long_is_stopped_in_the_server(backend, code, message):
    execution = run(backend, code)
    assert (execution.error, execution.message, execution.rows) == ("Timeout", message, ())
    # Work is a fact about the code. What slept may have waited for something.
    assert execution.repeatable == (message == WORKED)
    # A killed thread of the server needs a moment to end.
    assert eventually(lambda: not running(backend)), running(backend)
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


SPIN = "while True: pass"


def test_a_busy_machine_makes_no_query_late():
    backend = alone(GAMES)
    run(backend, COUNT)
    clock = backend._sessions["games"].flight.clock
    repeats, used = 25_000, 0.0
    while used < 0.15:
        repeats *= 2
        before = clock.read()
        run(backend, f"SELECT BENCHMARK({repeats}, SHA2('a', 512))")
        used = clock.read().since(before).cpu
    # All on one processor, each hog in a session of its own, for the kernel shares time out among sessions.
    processor = {min(os.sched_getaffinity(0))}
    os.sched_setaffinity(clock.thread, processor)
    hogs = [subprocess.Popen([sys.executable, "-c", SPIN], start_new_session=True) for _ in range(7)]
    try:
        for hog in hogs:
            os.sched_setaffinity(hog.pid, processor)
        execution = run(backend, f"SELECT BENCHMARK({repeats}, SHA2('a', 512))")
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    backend.close()
    # By the clock it was late, or this shows nothing.
    assert execution.seconds > 0.6
    assert (execution.rows, execution.message) == (((0,),), "")


@pytest.mark.parametrize(
    "code",
    [
        "SELECT SLEEP(60)",
        LOOP,
        "SELECT BENCHMARK(10000000000, SHA2('a', 512))",
        "SELECT COUNT(*) FROM athlete a WHERE SLEEP(0.02) = 0",
    ],
)
def test_where_the_server_s_time_cannot_be_read_the_wall_clock_counts(monkeypatch, code):
    monkeypatch.setattr("codegym_mariadb.opening.clock_of", lambda _: None)
    backend = opened()
    execution = run(backend, code)
    assert (execution.error, execution.message, execution.repeatable) == ("Timeout", SLEPT, False)
    assert execution.seconds < 5
    (waits,) = [finding for finding in backend.protections() if finding.text.startswith("time is the server's own")]
    assert waits.level == "warning"
    backend.close()


def test_one_enormous_row_is_not_read():
    backend = alone(GAMES)
    cells = ", ".join(["REPEAT('a', 32000)"] * 1500)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for code in (f"SELECT {cells}", f"SELECT {cells} FROM medal"):
        execution = run(backend, code)
        assert (execution.truncated, execution.rows, execution.error) == (True, (), "")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KiB; a row has 48 MB
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_a_result_of_as_many_rows_as_are_read_at_once_is_whole(backend):
    for number in (49, 50, 51, 100, 101):
        execution = run(backend, f"SELECT medal_id FROM medal ORDER BY 1 LIMIT {number}")
        assert (execution.ok, execution.rows) == (True, tuple((row,) for row in range(number)))


@pytest.mark.parametrize(
    ("code", "repeatable"),
    [
        (COUNT, True),
        ("WITH m AS (SELECT * FROM medal) SELECT MAX(year) FROM m", True),
        ("SELECT 'Grand Prix', name FROM athlete ORDER BY 2 LIMIT 1", True),
        ("SELECT nosuch FROM medal", True),
        (f"SELECT COUNT(*) FROM ({ENDLESS}) AS e", True),
        ("SELECT RAND()", False),
        ("SELECT `RAND` /* x */ ()", False),
        ("SELECT athlete_id FROM athlete ORDER BY rand() LIMIT 1", False),
        ("SELECT UUID()", False),
        ("SELECT NOW()", False),
        ("SELECT CURRENT_DATE", False),
        ("SELECT SYSDATE()", False),
        ("SELECT LOCALTIME", False),
        ("SELECT UTC_DATE()", False),
        ("SELECT UNIX_TIMESTAMP()", False),
        ("SELECT CAST(CAST('10:00' AS TIME) AS DATETIME)", False),
        ("SELECT CONNECTION_ID()", False),
        ("SELECT USER()", False),
        ("SELECT id FROM information_schema.processlist", False),
        ("SELECT @@timestamp", False),
        ("SELECT IS_FREE_LOCK('x')", False),
        ("SHOW STATUS", False),
        ("EXECUTE IMMEDIATE CONCAT('SELECT RA', 'ND()')", False),
    ],
)
def test_what_may_answer_differently_says_so(backend, code, repeatable):
    assert run(backend, code).repeatable == repeatable


def test_the_probe_tells_that_a_server_works_though_the_one_before_it_died():
    backend = alone(GAMES)
    assert backend.probe()
    backend._station._server.kill()
    assert backend.probe()
    backend.close()
    assert not backend.probe()


def test_every_protection_of_a_private_server_holds(backend):
    findings = list(backend.protections())
    assert [finding.text for finding in findings if finding.level != "note"] == []
    assert len(findings) >= 12
    assert run(backend, COUNT).rows == ((1000,),)


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
        ("SELECT _nosuchset 'a'", "OperationalError", "1054: "),
        ("SELECT CONVERT('a' USING nosuchset)", "OperationalError", "1115: Unknown character set"),
        ("SELECT '" + "x" * 17_000_000 + "'", "LimitExceeded", "the code has 17000009 bytes"),
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
        ("SET max_statement_time = 0", "SELECT @@max_statement_time", Decimal(5)),
        ("SET character_set_results = ucs2", "SELECT 'a'", "a"),
        ("SELECT LAST_INSERT_ID(42)", "SELECT LAST_INSERT_ID()", 0),
        ("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SELECT @@tx_isolation", "REPEATABLE-READ"),
        ("SET div_precision_increment = 0", "SELECT 1 / 3", Decimal("0.3333")),
        ("SET lc_time_names = 'de_DE'", "SELECT DAYNAME('2024-01-01')", "Monday"),
        ("SET timestamp = 1", "SELECT YEAR(NOW()) > 2000", 1),
        ("SET sql_select_limit = 0", COUNT, 1000),
        ("SET collation_connection = utf8mb4_general_ci", "SELECT 'a' = 'A'", 0),
        ("SET optimizer_switch = 'index_merge=off'", "SELECT @@optimizer_switch LIKE '%index_merge=on%'", 1),
        ("SET max_join_size = 1", "SELECT COUNT(*) FROM medal a, athlete b", 100_000),
        ("SET group_concat_max_len = 4", "SELECT LENGTH(GROUP_CONCAT(name)) > 4 FROM athlete", 1),
        ("SET profiling = 1", "SELECT @@profiling", 0),
        ("SET ROLE NONE", "SELECT CURRENT_ROLE()", None),
        ("XA START 'x'", "SELECT @@in_transaction", 0),
        ("HANDLER medal OPEN", COUNT, 1000),
        ("SELECT SQL_CALC_FOUND_ROWS medal_id FROM medal LIMIT 1", "SELECT FOUND_ROWS() < 2", 1),
        ("SELECT * FROM medal LIMIT 7", "SELECT FOUND_ROWS()", 1),
        ("SELECT medal_id FROM medal WHERE medal_id = 1 FOR UPDATE", "SELECT @@in_transaction", 0),
        ("START TRANSACTION WITH CONSISTENT SNAPSHOT", "SELECT @@in_transaction", 0),
        ("SET PASSWORD = PASSWORD('x')", COUNT, 1000),
        ("SELECT 1 /*! INTO @x */", "SELECT @x", None),
        ("/* x */ SELECT @y := 1", "SELECT @y", None),
        ("SELECT `GET_LOCK`('z', 0)", "SELECT IS_USED_LOCK('z')", None),
        ("SET max_session_mem_used = 9000000000", "SELECT @@max_session_mem_used", 32 * 2**20),
    ],
)
def test_nothing_of_one_rollout_is_seen_by_the_next(backend, poison, probe, clean):
    run(backend, poison)
    assert run(backend, probe).rows == ((clean,),)


def while_running(backend, code, act):
    """Do something to the server while code runs there, and return the execution."""
    timer = threading.Timer(0.3, act)
    timer.start()
    try:
        return run(backend, code)
    finally:
        timer.join()


def killing(backend, kind):
    """What kills the query of the backend's session, as an administrator might."""

    def kill():
        with administrator(backend) as connection:
            rows(connection, f"KILL {kind} {backend._sessions['games'].flight.connection_id}")

    return kill


def test_a_query_that_an_administrator_kills_runs_again():
    backend = alone(GAMES, time_limit=20.0)
    run(backend, COUNT)
    assert while_running(backend, "SELECT SLEEP(0.8)", killing(backend, "QUERY")).rows == ((0,),)
    with pytest.raises(codegym.BackendError, match="2013: Lost connection"):
        while_running(backend, "SELECT SLEEP(0.8)", killing(backend, "CONNECTION"))
    killing(backend, "CONNECTION")() if run(backend, COUNT).ok else None
    with pytest.raises(codegym.BackendError, match=r"20\d\d: |1927: "):
        run(backend, COUNT)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_a_lock_that_another_account_holds_is_not_the_code_s_fault():
    backend = alone(GAMES, time_limit=20.0)
    name = backend._station.provide(GAMES, 0).name
    with administrator(backend) as connection:
        rows(connection, f"LOCK TABLES `{name}`.medal WRITE")
        with pytest.raises(codegym.BackendError, match="1205: Lock wait timeout"):
            run(backend, COUNT)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_a_server_without_a_free_connection_is_not_the_code_s_fault():
    backend = alone(GAMES)
    reader = backend._station.provide(GAMES, 0).reader
    with administrator(backend) as connection, ExitStack() as stack:
        rows(connection, "SET GLOBAL max_connections = 10")
        with suppress(MySQLdb.OperationalError):
            while True:
                stack.enter_context(closing(backend._station.address.connect(reader)))
        with pytest.raises(codegym.BackendError, match="1040: Too many connections"):
            run(backend, COUNT)
    with administrator(backend) as connection:
        rows(connection, f"ALTER USER '{reader.user}'@localhost WITH MAX_USER_CONNECTIONS 1")
        with closing(backend._station.address.connect(reader)), pytest.raises(codegym.BackendError, match="1226: "):
            run(backend, COUNT)
        rows(connection, f"ALTER USER '{reader.user}'@localhost WITH MAX_USER_CONNECTIONS 0")
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_whose_fault_it_is_that_a_server_is_out_of_memory_is_found_out_by_running_alone(monkeypatch):
    monkeypatch.setattr(server, "CEILINGS", {})  # with them no query gets at that much
    # The query that is told so need not be the one that took it, so it is not repeatable: the lanes run it once more.
    backend = alone(GAMES, memory_mb=768, time_limit=20.0)
    lifted = ("max_session_mem_used", "tmp_table_size", "max_heap_table_size", "sort_buffer_size")
    greedy = f"SET STATEMENT {', '.join(f'{name} = 4000000000' for name in lifted)} FOR SELECT COUNT(*) FROM ("
    greedy += "SELECT DISTINCT CONCAT(REPEAT('x', 400), a.medal_id, b.medal_id, c.athlete_id) "
    greedy += "FROM medal a, medal b, athlete c) AS triples"
    execution = run(backend, greedy)
    assert (execution.error, execution.repeatable) == ("LimitExceeded", False)
    assert execution.message.startswith("5: Out of memory")
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_no_memory_in_this_process_is_not_the_code_s_fault(backend, monkeypatch):
    def fail(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("codegym_mariadb.session.Session._fetch", fail)
        with pytest.raises(codegym.BackendError, match="no memory for the rows in this process"):
            run(backend, COUNT)
    assert run(backend, COUNT).rows == ((1000,),)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        *((MySQLdb.OperationalError(code, ""), Fault.MACHINE) for code in (2006, 2013, 2014, 1040, 1203, 1205, 1213)),
        *((MySQLdb.OperationalError(code, ""), Fault.MACHINE) for code in (3, 28, 126, 1021, 1053)),
        *((MySQLdb.OperationalError(code, ""), Fault.MEMORY) for code in (5, 1037, 1038, 1041)),
        *((MySQLdb.OperationalError(code, ""), Fault.UNCLEAR) for code in (1317, 1927)),
        *((MySQLdb.OperationalError(code, ""), Fault.LIMIT) for code in (1104, 1114, 1436, 1473)),
        (MySQLdb.OperationalError(1969, ""), Fault.TIME),
        (MySQLdb.OperationalError(1290, "with the --max-session-mem-used option"), Fault.LIMIT),
        (MySQLdb.OperationalError(1290, "with the --read-only option"), Fault.CODE),
        (MySQLdb.ProgrammingError(1064, ""), Fault.CODE),
        (MySQLdb.OperationalError(1115, "Unknown character set"), Fault.CODE),
        # The driver's own complaints are mistakes of this plugin.
        (MySQLdb.ProgrammingError("this connection is already in use"), Fault.MACHINE),
        (MySQLdb.InterfaceError(0, ""), Fault.MACHINE),
    ],
    ids=str,
)
def test_every_error_has_somebody_whose_fault_it_is(error, fault):
    assert fault_of(error) is fault


def test_a_thread_that_outlives_its_killed_connection_costs_the_server():
    backend = alone(GAMES, max_text=16 * 2**20)
    run(backend, COUNT)
    process = backend._sessions["games"].server_process
    assert process
    # The client is free as soon as its connection is killed; this one call runs on for half a minute.
    execution = run(backend, "SELECT LOCATE(CONCAT(REPEAT('a', 8000000), 'b'), REPEAT('a', 16000000))")
    assert (execution.error, execution.message) == ("Timeout", WORKED)
    assert run(backend, COUNT).rows == ((1000,),)
    assert eventually(lambda: not Path("/proc", str(process)).exists(), 15)
    with pytest.raises(codegym.BackendError):
        run(backend, COUNT)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_a_query_that_nothing_stops_costs_the_server_and_is_the_code_s_fault():
    backend = alone(GAMES)
    pid = backend._station._server.pid
    # As if the server let nobody in who could send a KILL.
    backend._station.watchdog.kill = lambda *_: False
    assert run(backend, "SET STATEMENT max_statement_time = 0 FOR SELECT SLEEP(30)").error == "Timeout"
    assert run(backend, COUNT).rows == ((1000,),)
    assert backend._station._server.pid != pid
    backend.close()


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
