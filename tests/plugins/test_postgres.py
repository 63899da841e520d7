"""Show on a real server that the postgres backend is read-only, stops what runs too long, and outlives its server."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path

import pytest

import codegym
from codegym_postgres import Postgres, server

if not importlib.util.find_spec("psycopg") or server.missing_programs():
    REASON = "psycopg or postgres is not installed: pip install 'codegym[postgres]', apt-get install postgresql"
    if os.environ.get("CI"):
        pytest.fail(REASON, pytrace=False)
    pytest.skip(REASON, allow_module_level=True)

import psycopg

from codegym_postgres.faults import Fault, fault_of
from codegym_postgres.process import session_process
from codegym_postgres.statement import changes, first_word, leaves_traces
from codegym_rems.answers import predicted_parts
from codegym_sqlite import Sqlite
from codegym_temptabqa.sample import TemptabqaSample

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
ENDLESS = "SELECT COUNT(*) FROM medal a, medal b, medal c, medal d WHERE a.year + b.year + c.year + d.year = 1"
DEAF = "SELECT strpos(repeat('a', 60000000), 'b' || repeat('a', 30000000))"
"""One call of one function, which looks up from its work for no signal but SIGKILL."""


OPENED = []


@pytest.fixture(autouse=True)
def closing_all():
    """What a failed test leaves open must not be met by the next one."""
    yield
    while OPENED:
        OPENED.pop().close()


def opened(*databases, **settings):
    backend = Postgres(**{"time_limit": 0.5, **settings})
    OPENED.append(backend)
    backend.open(databases or [GAMES, OTHER])
    return backend


def alone(*databases, number=itertools.count(5000), **settings):
    """A backend with settings, and so a server, that no other test shares."""
    return opened(*databases, max_rows=next(number), **settings)


def run(backend, code, database="games"):
    return backend.execute(code, codegym.Example("train/0", "", "", database))


def administrator(backend, database="postgres"):
    """A connection that sees the whole server."""
    return closing(backend._station._connect_administrator(database))


def ask(backend, sql, database="postgres"):
    with administrator(backend, database) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def name_of(backend, database=GAMES):
    return backend._station.provide(database, backend._lane).name


def reader_pid(backend, database="games"):
    """The number of the server's process behind the session."""
    assert run(backend, "SELECT 1", database).ok
    return backend._sessions[database]._connection.info.backend_pid


def until(condition, seconds=10.0):
    """Wait for a condition and return whether it came."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def gone(pid):
    try:
        return b") Z" in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True


@pytest.fixture(scope="module")
def backend():
    backend = opened()
    OPENED.remove(backend)
    yield backend
    backend.close()


def test_importing_the_plugin_imports_no_driver():
    code = """
import sys, codegym_postgres
list(codegym_postgres.codegym_backends()["postgres"]().findings())
print("psycopg" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_query_gives_columns_and_rows(backend):
    code = "SELECT name, COUNT(*) AS medals FROM athlete JOIN medal USING (athlete_id) WHERE name LIKE '% 7' GROUP BY 1"
    execution = run(backend, code)
    assert execution.ok
    assert execution.repeatable
    assert (execution.columns, execution.rows) == (("name", "medals"), (("Ada Example 7", 10),))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("NULL", None),
        ("1", 1),
        ("9223372036854775807", 2**63 - 1),
        ("1.50", Decimal("1.50")),
        ("1e400::numeric", Decimal(10) ** 400),
        ("0.1::float8", 0.1),
        ("'-infinity'::float8", -math.inf),
        ("'ä€😀'", "ä€😀"),
        ("'\\xff00'::bytea", b"\xff\x00"),
        ("1 = 1", True),
        ("DATE '2020-02-29'", date(2020, 2, 29)),
        ("TIME '12:30'", time_of_day(12, 30)),
        ("TIMESTAMP '2020-02-29 12:30'", datetime(2020, 2, 29, 12, 30)),
        ("TIMESTAMPTZ '2020-02-29 12:30+02'", datetime(2020, 2, 29, 10, 30, tzinfo=UTC)),
        ("INTERVAL '1 day 2 hours'", timedelta(days=1, hours=2)),
        ("INTERVAL '1 month'", timedelta(days=30)),
        # What Python has no value for is PostgreSQL's text.
        ("'infinity'::date", "infinity"),
        ("'10000-01-01'::timestamp", "10000-01-01 00:00:00"),
        ("TIME '24:00'", "24:00:00"),
        ("ARRAY[1, NULL]", "{1,NULL}"),
        ("'{\"a\": 1}'::jsonb", '{"a": 1}'),
        ("'[1,9]'::int4range", "[1,10)"),
        ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("ROW(1, 'a')", "(1,a)"),
        ("'101'::bit(3)", "101"),
    ],
)
def test_every_value_has_a_stated_form(backend, expression, value):
    ((cell,),) = run(backend, f"SELECT {expression}").rows
    assert (type(cell), cell) == (type(value), value)


def test_not_a_number_is_a_float(backend):
    ((cell, exact),) = run(backend, "SELECT 'NaN'::float8, 'NaN'::numeric").rows
    assert math.isnan(cell)
    assert exact.is_nan()


def test_equal_names_no_names_and_no_columns_are_kept(backend):
    execution = run(backend, "SELECT 1 AS a, 2 AS a, 3")
    assert (execution.columns, execution.rows) == (("a", "a", "?column?"), ((1, 2, 3),))
    nothing = run(backend, "SELECT FROM medal LIMIT 3")
    assert (nothing.ok, nothing.columns, nothing.rows) == (True, (), ((), (), ()))


def test_text_compares_as_in_sqlite(backend):
    assert run(backend, "SELECT COUNT(*) FROM medal WHERE type = 'GOLD'").rows == ((0,),)
    assert run(backend, "SELECT 'a' > 'B', 'Ä' > 'b', LOWER('AÄ')").rows == ((True, True, "aÄ"),)


def test_names_of_tables_and_aliases_compare_without_case():
    names = SCHEMA.replace("medal", "Medal").replace("athlete", "ATHLETE")
    backend = opened(codegym.Database("Games", names, {"ATHLETE": [(1, "x", None)], "Medal": [(1, 1, "gold", 2000)]}))
    assert run(backend, "SELECT M.Year FROM MEDAL m JOIN Athlete a ON A.athlete_id = m.Athlete_Id", "Games").rows == (
        (2000,),
    )
    backend.close()


def test_quoted_names_keep_their_case():
    backend = opened(codegym.Database("Quoted", 'CREATE TABLE "Medal" ("Year" INTEGER)', {"Medal": [(7,)]}))
    assert run(backend, 'SELECT "Year" FROM "Medal"', "Quoted").rows == ((7,),)
    assert run(backend, "SELECT Year FROM Medal", "Quoted").error == "UndefinedTable"
    backend.close()


WRITES = [
    "DROP TABLE medal",
    "DELETE FROM medal",
    "UPDATE medal SET type = 'silver'",
    "INSERT INTO athlete VALUES (1000, 'x', NULL)",
    "WITH gone AS (DELETE FROM medal RETURNING 1) SELECT COUNT(*) FROM gone",
    "EXPLAIN ANALYZE DELETE FROM medal",
    "CREATE TABLE t (a INT)",
    "SELECT 1 AS a INTO t",
    "CREATE TEMPORARY TABLE medal (a INT)",
    "SELECT 1 AS a INTO TEMPORARY medal",
    "CREATE SCHEMA s",
    "CREATE FUNCTION f() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION pg_trgm",
    "DO $$ BEGIN PERFORM 1; END $$",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT set_config('work_mem', '1GB', false)",
    "SELECT setseed(0.5)",
    "SELECT pg_notify('a', 'b')",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "SELECT query_to_xml('SELECT 1', true, true, '')",
    "UPDATE pg_settings SET setting = '1GB' WHERE name = 'work_mem'",
    "SELECT pg_read_file('PG_VERSION')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY athlete FROM '/etc/passwd'",
    "CREATE ROLE evil SUPERUSER",
    "SET ROLE codegym",
    "SELECT * FROM medal FOR UPDATE",
]


@pytest.mark.parametrize("code", WRITES)
def test_all_but_reading_is_refused(backend, code):
    execution = run(backend, code)
    assert execution.error in ("ProgrammingError", "InsufficientPrivilege", "ReadOnlySqlTransaction")
    assert run(backend, "SELECT COUNT(*), MIN(type) FROM medal").rows == ((1000, "gold"),)


@pytest.mark.parametrize("code", WRITES)
def test_the_server_itself_refuses_it_in_a_transaction_that_may_write(backend, code):
    station = backend._station
    with closing(station.open_session(station.provide(GAMES, backend._lane))) as connection:
        connection.execute("BEGIN READ WRITE")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(code)


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ("secret", "UndefinedTable"),
        ("{other}.public.secret", "FeatureNotSupported"),
        ("codegym.load", "InsufficientPrivilege"),
        ("pg_authid", "InsufficientPrivilege"),
        ("pg_locks", "InsufficientPrivilege"),
    ],
)
def test_nothing_but_the_tables_of_the_database_can_be_read(backend, table, error):
    assert run(backend, f"SELECT * FROM {table.format(other=name_of(backend, OTHER))}").error == error
    visible = "SELECT table_name FROM information_schema.tables WHERE table_schema NOT LIKE '%\\_%' ORDER BY 1"
    assert run(backend, visible).rows == (("athlete",), ("medal",))


def test_a_reader_cannot_connect_to_another_database(backend):
    station = backend._station
    reader = station.provide(GAMES, backend._lane).reader
    for database in (name_of(backend, OTHER), "postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            station.address.connect(reader, database)


@pytest.mark.parametrize(
    ("code", "message", "repeatable"),
    [
        ("SELECT pg_sleep(60)", "the query waited for longer than 0.5 s (time_limit)", False),
        (ENDLESS, "the query took more than 0.5 s of the server's CPU time (time_limit)", True),
        (DEAF, "the query took more than 0.5 s of the server's CPU time (time_limit)", True),
    ],
)
def test_what_runs_too_long_is_stopped_in_the_server(backend, code, message, repeatable):
    pid = reader_pid(backend)
    execution = run(backend, code)
    assert (execution.error, execution.message, execution.repeatable) == ("Timeout", message, repeatable)
    assert until(lambda: gone(pid))
    assert run(backend, COUNT).rows == ((1000,),)


def test_what_nothing_stops_costs_the_server_and_no_answer_of_others():
    backend = alone(GAMES)
    other = opened(GAMES, max_rows=backend.max_rows)
    assert run(other, COUNT).ok
    before = backend._station._server.generation
    assert run(backend, DEAF).error == "Timeout"
    with pytest.raises(codegym.BackendError):
        run(other, COUNT)
    assert run(other, COUNT).rows == run(backend, COUNT).rows == ((1000,),)
    assert backend._station._server.generation == before + 1
    for one in (backend, other):
        one.close()


def test_a_busy_machine_makes_no_query_late(backend):
    code = "SELECT COUNT(*) FROM generate_series(1, 700000) a"
    reader_pid(backend)
    process = backend._sessions["games"].process
    before = process.seconds()
    assert run(backend, code).ok
    limit = max(0.1, 2.5 * (process.seconds() - before))
    busy = opened(GAMES, time_limit=limit)
    burn = [sys.executable, "-c", "while True: pass"]
    burners = [subprocess.Popen(burn, start_new_session=True) for _ in range(6 * (os.cpu_count() or 1))]
    try:
        assert run(busy, "SELECT 1").ok
        execution = run(busy, code)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    assert execution.rows == ((700_000,),)
    if execution.seconds < limit:
        pytest.skip(f"the machine was not busy enough: {execution.seconds:.2f} s by the clock, limit {limit:.2f} s")


def test_a_session_that_stands_still_is_late_by_no_fault_that_counts_for_good():
    backend = alone(GAMES)
    pid = reader_pid(backend)
    threading.Timer(0.2, os.kill, (pid, signal.SIGSTOP)).start()
    execution = run(backend, ENDLESS)
    assert (execution.error, execution.repeatable) == ("Timeout", False)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("SELECT length(repeat('a', 900000000))", "53200: out of memory"),
        ("SELECT length(repeat('a', 2000000000))", "54000: requested length too large"),
        (
            "SELECT COUNT(*) FROM generate_series(1, 1000000000000)",
            "53400: temporary file size exceeds temp_file_limit",
        ),
        ("SELECT repeat('[', 100000)::json", "54001: stack depth limit exceeded"),
        ("SELECT repeat('x', 40000)", "a value of the answer has 40000 bytes, the limit is 32768 (max_text)"),
        ("SELECT '" + "x" * 40_000 + "'", "the code has 40009 bytes, the limit is 32768 (max_text)"),
    ],
)
def test_what_is_too_large_names_its_limit(code, message):
    backend = opened(time_limit=10.0)
    execution = run(backend, code)
    assert (execution.error, execution.rows, execution.repeatable) == ("LimitExceeded", (), True)
    assert execution.message.startswith(message)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_rows_and_bytes_are_cut_off_and_the_rest_is_not_read():
    backend = opened(GAMES, max_rows=10, max_bytes=300, time_limit=5.0)
    pid = reader_pid(backend)
    execution = run(backend, "SELECT a.medal_id FROM medal a, medal b, medal c")
    assert (execution.truncated, execution.error, len(execution.rows), execution.ok) == (True, "", 10, False)
    assert execution.seconds < 2
    assert until(lambda: gone(pid))
    assert len(run(backend, "SELECT REPEAT('x', 100) FROM athlete").rows) == 3
    assert run(backend, "SELECT medal_id FROM medal LIMIT 10").ok
    backend.close()


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("", "ProgrammingError", "the code is empty"),
        ("-- nothing", "ProgrammingError", "the code is empty"),
        (" ;\n", "ProgrammingError", "the code is empty"),
        ("SELECT nosuch FROM medal", "UndefinedColumn", '42703: column "nosuch" does not exist'),
        ("SELECT FROM WHERE", "SyntaxError", '42601: syntax error at or near "WHERE"'),
        ("SELECT 1/0", "DivisionByZero", "22012: division by zero"),
        ("I think it is 42", "ProgrammingError", "the code is not a query: it begins with 'i'"),
        ("SELECT 1; SELECT 2", "SyntaxError", "42601: cannot insert multiple commands into a prepared statement"),
        ("SELECT $1::integer", "ProtocolViolation", "08P01: bind message supplies 0 parameters"),
        ("SET work_mem = '1GB'", "ProgrammingError", "the code is not a query: it begins with 'set'"),
        ("COPY medal TO STDOUT", "ProgrammingError", "the code is not a query: it begins with 'copy'"),
        ("SELECT 1\0", "ProgrammingError", "the code contains a NUL character"),
        ("SELECT '\ud800'", "UnicodeEncodeError", "'utf-8' codec can't encode"),
        ("SELECT chr(0)", "ProgramLimitExceeded", "54000: null character not permitted"),
    ],
)
def test_wrong_code_is_an_error_of_the_code(backend, code, error, message):
    execution = run(backend, code)
    assert execution.error in (error, "LimitExceeded")
    assert execution.message.lower().startswith(message.lower())
    assert run(backend, COUNT).rows == ((1000,),)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("SELECT 1", "select"),
        ("  (( SELECT 1))", "select"),
        ("/* a */ -- b\n;WITH x", "with"),
        ("-- a\rSELECT", "select"),
        ("/* /* */ SELECT */ DO", "do"),
        ("/* /*/ SELECT */ */ DO", "do"),
        ("/* open", ""),
        ("\ufeffSELECT 1", "\ufeff"),
        ('"select"', '"'),
        ("SELECTED", "selected"),
    ],
)
def test_the_first_word_is_found_as_postgresql_finds_it(code, word):
    assert first_word(code) == word


def test_what_may_leave_a_trace_or_change_is_known():
    assert leaves_traces('SELECT U&"\\0073et_config"(1, 2, 3)')
    assert leaves_traces("SELECT SETSEED(0.1)")
    assert not leaves_traces("SELECT name FROM medal WHERE type = 'gold'")
    for code in ("SELECT now()", "SELECT CURRENT_DATE", "SELECT RANDOM()", "SELECT age(born)", "SELECT 'today'::date"):
        assert changes(code)
    assert not changes("SELECT average, nowhere FROM images")


@pytest.mark.parametrize(
    "expression",
    [
        "current_user",
        "session_user",
        "user",
        "CURRENT_ROLE",
        "CAST('n'||'ow' AS timestamp)",
        "('n' || 'ow')::timestamptz",
        "date(concat('to', 'day'))",
        "E'n\\157w'::timestamp",
        "'n'\n'ow'::timestamp",
        "left('nowhere', 3)::timestamp",
    ],
)
def test_what_names_the_account_or_puts_a_clock_together_is_not_kept(backend, expression):
    execution = run(backend, f"SELECT {expression}")
    assert execution.ok, execution.message
    assert not execution.repeatable


@pytest.mark.parametrize(
    "code",
    [
        "SELECT born::date, DATE '2020-01-01' FROM athlete WHERE born > '1979-01-01'::date",
        "SELECT name || ' ' || athlete_id FROM athlete LEFT JOIN medal USING (athlete_id)",
        "SELECT CAST(COUNT(*) AS numeric) / 2 FROM medal LEFT JOIN athlete USING (athlete_id)",
    ],
)
def test_what_reads_a_time_or_joins_texts_is_kept(backend, code):
    assert run(backend, code).repeatable


def test_functions_with_an_effect_are_denied_to_the_code(backend):
    left = """
        SELECT DISTINCT proname FROM pg_proc
        WHERE provolatile = 'v' AND has_function_privilege('public', oid, 'EXECUTE')
            AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) ORDER BY 1
    """
    found = [row[0] for row in ask(backend, left, name_of(backend))]
    assert found == ["clock_timestamp", "gen_random_uuid", "pg_sleep", "random", "timeofday"]


@pytest.mark.parametrize(
    ("poison", "probe", "clean"),
    [
        ("SET statement_timeout = 0", "SHOW statement_timeout", "6s"),
        ("BEGIN READ WRITE", "SHOW transaction_read_only", "on"),
        ("SET search_path = pg_catalog", "SHOW search_path", "public"),
        ("SELECT set_config('search_path', 'pg_catalog', false)", "SHOW search_path", "public"),
        ("SET TIME ZONE 'Asia/Tokyo'", "SHOW TimeZone", "UTC"),
        ("PREPARE p AS SELECT 1", "SELECT COUNT(*) FROM pg_prepared_statements", 0),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "SELECT COUNT(*) FROM pg_cursors WHERE name = 'c'", 0),
        ("LISTEN a", "SELECT COUNT(*) FROM pg_listening_channels()", 0),
        ("SET client_encoding = 'LATIN1'", "SELECT 'ä'", "ä"),
        ("SET DateStyle = 'German'", "SELECT DATE '2020-02-01'", date(2020, 2, 1)),
    ],
)
def test_nothing_of_one_rollout_is_seen_by_the_next(backend, poison, probe, clean):
    run(backend, poison)
    assert run(backend, probe).rows == ((clean,),)


def test_a_session_that_may_hold_a_trace_is_thrown_away(backend):
    pid = reader_pid(backend)
    assert run(backend, "SELECT nosuch").error
    assert reader_pid(backend) == pid
    run(backend, "SELECT set_config('a.b', 'c', false)")
    assert reader_pid(backend) != pid


def test_a_query_with_a_clock_is_not_kept(backend):
    assert not run(backend, "SELECT CURRENT_DATE").repeatable
    assert run(backend, "SELECT nosuch").repeatable


def test_a_dead_server_is_not_the_code_s_fault_and_comes_back():
    backend = alone(GAMES)
    assert run(backend, COUNT).rows == ((1000,),)
    backend._station._server.kill()
    with pytest.raises(codegym.BackendError, match="postgres: "):
        run(backend, COUNT)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_a_server_that_dies_under_a_query_is_not_the_code_s_fault():
    backend = alone(GAMES, time_limit=20.0)
    threading.Timer(0.3, backend._station._server.kill).start()
    with pytest.raises(codegym.BackendError, match="postgres: "):
        run(backend, "SELECT pg_sleep(10)")
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_a_process_of_the_server_that_dies_is_not_the_code_s_fault():
    backend = alone(GAMES, time_limit=20.0)
    threading.Timer(0.3, os.kill, (reader_pid(backend), signal.SIGKILL)).start()
    with pytest.raises(codegym.BackendError, match="postgres: "):
        run(backend, "SELECT pg_sleep(10)")
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


@pytest.mark.parametrize(
    ("function", "message"),
    [("pg_terminate_backend", "57P01: terminating connection"), ("pg_cancel_backend", "57014: canceling statement")],
)
def test_what_an_administrator_stops_is_not_the_code_s_fault(function, message):
    backend = opened(GAMES, time_limit=20.0)
    stop = f"SELECT {function}({reader_pid(backend)})"
    threading.Timer(0.3, ask, (backend, stop)).start()
    with pytest.raises(codegym.BackendError, match=message):
        run(backend, "SELECT pg_sleep(10)")
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_too_many_connections_are_not_the_code_s_fault():
    backend = opened(GAMES)
    reader = backend._station.provide(GAMES, backend._lane).reader.user
    ask(backend, f'ALTER ROLE "{reader}" CONNECTION LIMIT 0')
    with pytest.raises(codegym.BackendError, match=r"cannot open a session: .*too many connections for role"):
        run(backend, COUNT)
    ask(backend, f'ALTER ROLE "{reader}" CONNECTION LIMIT -1')
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_a_frozen_server_is_replaced():
    backend = alone(GAMES)
    os.kill(backend._station._server.pid, signal.SIGSTOP)
    with pytest.raises(codegym.BackendError, match="timeout expired"):
        run(backend, COUNT)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


@pytest.mark.parametrize(
    ("sqlstate", "fault"),
    [
        ("", Fault.MACHINE),
        ("08006", Fault.MACHINE),
        ("08P01", Fault.CODE),
        ("22012", Fault.CODE),
        ("25006", Fault.CODE),
        ("40001", Fault.MACHINE),
        ("40P01", Fault.MACHINE),
        ("42501", Fault.CODE),
        ("53100", Fault.MACHINE),
        ("53300", Fault.MACHINE),
        ("53400", Fault.LIMIT),
        ("54001", Fault.LIMIT),
        ("55P03", Fault.MACHINE),
        ("57014", Fault.MACHINE),
        ("57P01", Fault.MACHINE),
        ("57P02", Fault.MACHINE),
        ("57P03", Fault.MACHINE),
        ("58030", Fault.MACHINE),
        ("XX001", Fault.MACHINE),
    ],
)
def test_every_sqlstate_has_one_to_blame(sqlstate, fault):
    assert fault_of(sqlstate, "", memory_is_bounded=True) is fault


def test_memory_is_the_code_s_limit_only_where_it_has_one_of_its_own():
    assert fault_of("53200", "", memory_is_bounded=True) is Fault.LIMIT
    assert fault_of("53200", "", memory_is_bounded=False) is Fault.MACHINE


def test_data_that_changed_while_the_server_was_down_are_loaded_again():
    backend = alone(GAMES)
    ask(backend, "DELETE FROM medal WHERE medal_id > 10", name_of(backend))
    assert run(backend, COUNT).rows == ((11,),)
    backend._station._server.kill()
    with pytest.raises(codegym.BackendError):
        run(backend, COUNT)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


@pytest.mark.skipif(not Path("/proc/sysvipc/shm").exists(), reason="the system does not show its shared memory")
def test_a_killed_server_leaves_no_shared_memory():
    def segments():
        return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}

    backend = alone(GAMES)
    folder = backend._station._server.folder
    its = (folder / "data" / "postmaster.pid").read_text().splitlines()[6].split()[1]
    assert its in segments()
    assert run(backend, COUNT).ok
    backend._station._server.kill()
    with pytest.raises(codegym.BackendError):
        run(backend, COUNT)
    assert run(backend, COUNT).rows == ((1000,),)
    assert its not in segments()
    backend.close()


def test_instances_share_a_server_and_the_last_one_stops_it():
    first, second = (opened(GAMES, max_rows=4999) for _ in range(2))
    assert first._station is second._station
    pid, folder = first._station._server.pid, first._station._server.folder
    first.close()
    assert run(second, COUNT).rows == ((1000,),)
    second.close()
    assert until(lambda: gone(pid))
    assert until(lambda: not folder.exists())


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
        kill = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity"
        assert run(backend, kill).error == "InsufficientPrivilege"
        seen = "SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE '%MAX%' AND pid <> pg_backend_pid()"
        assert run(backend, seen).rows == ((0,),)
        assert run(backend, ENDLESS).error == "Timeout"
        backend.close()

    threads = [threading.Thread(target=target, args=(n,)) for n, target in enumerate([honest, hostile, honest])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_more_databases_than_connections_are_served_one_after_the_other():
    databases = [
        codegym.Database(f"small{number}", "CREATE TABLE t (a INTEGER)", {"t": [(number,)]}) for number in range(10)
    ]
    backend = opened(*databases)
    for _ in range(2):
        for number, database in enumerate(databases):
            assert run(backend, "SELECT a FROM t", database.name).rows == ((number,),)
    assert sum(session.connected for session in backend._sessions.values()) == 8
    backend.close()


OWNER = """
import sys, threading, time
import codegym
from codegym_postgres import Postgres
backend = Postgres(time_limit=60.0)
databases = [codegym.Database("d", "CREATE TABLE t (a INT)", {"t": [(1,)]})]
opening = threading.Thread(target=backend.open, args=(databases,))
opening.start()
opening.join()
example = codegym.Example("x/0", "", "", "d")
assert backend.execute("SELECT a FROM t", example).rows == ((1,),)
(session,) = backend._sessions.values()
print(backend._station._server.pid, session._connection.info.backend_pid, backend._station._server.folder, flush=True)
backend.execute(sys.argv[1], example)
"""


def test_a_killed_run_leaves_no_process_and_no_folder(backend):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, DEAF], stdout=subprocess.PIPE, text=True)
    pid, session, folder = owner.stdout.readline().split()
    process = session_process(int(session))
    # The thread that opened has ended, the session's process is deep in its one call.
    assert until(lambda: process.seconds() > 0.3)
    process.close()
    assert not gone(pid)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert until(lambda: gone(pid))
    assert until(lambda: gone(session))
    assert until(lambda: not Path(folder).exists())
    assert run(backend, COUNT).rows == ((1000,),)


def test_a_forked_process_cannot_use_the_connection(backend):
    assert run(backend, COUNT).ok
    child = os.fork()
    if not child:
        try:
            run(backend, COUNT)
        except codegym.BackendError as error:
            os._exit(7 if "forked process" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert run(backend, COUNT).rows == ((1000,),)


def test_probe_tells_whether_the_server_answers(backend):
    assert backend.probe()
    assert not Postgres().probe()


def test_a_probe_is_false_while_any_database_in_use_does_not_answer():
    backend = alone()
    assert run(backend, COUNT).ok
    assert backend.probe()
    other = name_of(backend, OTHER)
    ask(backend, f'ALTER DATABASE "{other}" ALLOW_CONNECTIONS false')
    backend._sessions["other"].close()
    assert run(backend, COUNT).ok
    assert not backend.probe()
    ask(backend, f'ALTER DATABASE "{other}" ALLOW_CONNECTIONS true')
    assert backend.probe()


def test_all_protections_hold_on_a_private_server(backend):
    findings = list(backend.protections())
    assert len(findings) > 10
    assert [finding.text for finding in findings if finding.level != "note"] == []


def test_a_protection_that_does_not_hold_says_what_to_type():
    backend = alone(GAMES)
    ask(backend, "GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC", name_of(backend))
    ask(backend, "GRANT CREATE ON SCHEMA public TO PUBLIC", name_of(backend))
    texts = [finding.text for finding in backend.protections() if finding.level == "warning"]
    assert len(texts) == 2
    assert "does not hold: the code's account cannot create tables. To have it: take from the account" in texts[0]
    assert "does not hold: it cannot run DO blocks" in texts[1]
    assert "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC" in texts[1]
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_without_a_server_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(server, "SYSTEM_FOLDERS", ())
    with pytest.raises(codegym.ConfigError) as caught:
        opened(GAMES)
    assert str(caught.value).startswith(
        "postgres: postgres not found: install it (Debian: apt-get install postgresql), or name a server of yours with "
    )
    assert [finding.level for finding in Postgres().findings()] == ["error", "error"]


def test_without_the_driver_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("codegym_postgres._has_driver", lambda: False)
    expected = r"postgres needs the package psycopg, .* pip install 'codegym\[postgres\]'"
    with pytest.raises(codegym.MissingDependency, match=expected):
        opened(GAMES)


def test_an_account_without_a_server_is_a_mistake():
    with pytest.raises(codegym.ConfigError, match="user names an account of a server of yours; name the server too"):
        opened(GAMES, user="trainer")


def test_a_database_that_was_not_opened_is_named(backend):
    with pytest.raises(codegym.PluginError, match=r"names the database 'third'; opened were: .*'games'"):
        run(backend, "SELECT 1", "third")


def test_a_schema_that_postgresql_does_not_read_is_the_dataset_s_mistake():
    broken = codegym.Database("broken", "CREATE TABLE t (a INTEGER AUTO_INCREMENT)", {"t": [(1,)]})
    with pytest.raises(codegym.PluginError, match="postgres cannot load the database 'broken': syntax error"):
        opened(broken)


def test_the_right_queries_of_the_sample_answer_as_in_sqlite_or_say_what_postgresql_lacks():
    dataset = TemptabqaSample()
    (database,) = dataset.databases()
    backend, sqlite = opened(database), Sqlite()
    sqlite.open([database])
    answered, lacking = 0, set()
    for target in sorted({example.metadata["target"] for example in dataset.load("test")}):
        mine, its = run(backend, target, database.name), run(sqlite, target, database.name)
        assert its.ok
        if mine.ok:
            answered += 1
            assert sorted(predicted_parts(mine.rows)) == sorted(predicted_parts(its.rows)), target
        else:
            lacking.add(mine.message)
    sqlite.close()
    assert answered > 300
    assert lacking == {
        "42883: function sum(boolean) does not exist",
        "42883: function instr(unknown, character varying) does not exist",
    }


@pytest.mark.parametrize(
    ("expression", "sqlite", "postgres"),
    [
        ("7 / 2", 3, 3),
        ("7 / 2.0", 3.5, Decimal("3.5000000000000000")),
        ("0.1 + 0.2", 0.30000000000000004, Decimal("0.3")),
        ("ROUND(2.5)", 3.0, Decimal("3")),
        ("CAST(1.9 AS INTEGER)", 1, 2),
        ("1 = 1", 1, True),
        ("'A' LIKE 'a'", 1, False),
        ("1 / 0", None, "DivisionByZero"),
        ("'a' || 1", "a1", "a1"),
    ],
)
def test_where_the_engines_differ_is_known(backend, expression, sqlite, postgres):
    engine = Sqlite()
    engine.open([GAMES])
    assert run(engine, f"SELECT {expression}").rows == ((sqlite,),)
    engine.close()
    execution = run(backend, f"SELECT {expression}")
    assert (execution.error or execution.rows[0][0]) == postgres
