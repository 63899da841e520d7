"""Show that the postgres backend works on a server of the user's, within its grants, and touches nothing else there."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import closing
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

GAMES = codegym.Database(
    "games",
    "CREATE TABLE medal (medal_id INTEGER PRIMARY KEY, type VARCHAR(16))",
    {"medal": [(number, "gold") for number in range(1000)]},
)
COUNT = "SELECT COUNT(*) FROM medal"
ENDLESS = "SELECT COUNT(*) FROM medal a, medal b, medal c, medal d"


class OwnServer:
    """A server with its defaults, as a user may have one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(folder, self.user)
        install = [server.find_program("initdb"), f"--pgdata={folder / 'data'}", "--username=boss", "--no-sync"]
        subprocess.run([*install, "--auth=trust", "--encoding=UTF8", "--locale=C"], check=True, **self._as_user())
        (folder / "data" / "pg_hba.conf").write_text("local all boss trust\nlocal all all scram-sha-256\n")
        command = [server.find_program("postgres"), "-D", str(folder / "data"), "-c", "listen_addresses="]
        command += ["-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        self.process = subprocess.Popen(command, **self._as_user())
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self.ask("SELECT 1")
                return
            except psycopg.OperationalError:
                time.sleep(0.05)

    def _as_user(self):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
        return (
            {**quiet, "user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []}
            if self.user
            else quiet
        )

    def ask(self, statement, database="postgres"):
        with psycopg.connect(host=str(self.folder), user="boss", dbname=database, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def stop(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()
        shutil.rmtree(self.folder)


@pytest.fixture(scope="module")
def own():
    """A server with a database and accounts of the user's."""
    parent = "/dev/shm" if os.path.isdir("/dev/shm") else "/tmp"
    own = OwnServer(Path(tempfile.mkdtemp(prefix="own-", dir=parent)))
    try:
        own.ask("CREATE DATABASE private_matters")
        own.ask("CREATE TABLE diary (line TEXT)", "private_matters")
        own.ask("CREATE ROLE trainer LOGIN CREATEDB CREATEROLE PASSWORD 'right'")
        for name in ("weak", "reader"):
            own.ask(f"CREATE ROLE {name} LOGIN PASSWORD 'right'")
        own.ask("CREATE ROLE maker LOGIN CREATEDB PASSWORD 'right'")
        own.ask("CREATE ROLE snoop LOGIN PASSWORD 'right' IN ROLE pg_read_all_data")
        yield own
    finally:
        own.stop()


@pytest.fixture(autouse=True)
def passwords(monkeypatch):
    monkeypatch.setenv("CODEGYM_POSTGRES_PASSWORD", "right")
    monkeypatch.setenv("CODEGYM_POSTGRES_READER_PASSWORD", "right")


OPENED = []


@pytest.fixture(autouse=True)
def closing_all():
    """What a failed test leaves open must not be met by the next one."""
    yield
    while OPENED:
        OPENED.pop().close()


def opened(own, **settings):
    backend = Postgres(**{"time_limit": 0.5, "host": str(own.folder), "user": "trainer", **settings})
    OPENED.append(backend)
    backend.open([GAMES])
    return backend


def run(backend, code):
    return backend.execute(code, codegym.Example("train/0", "", "", "games"))


def name_of(backend):
    return backend._station.provide(GAMES, backend._lane).name


def test_socket_user_and_password_reach_a_server(own):
    backend = opened(own)
    assert run(backend, COUNT).rows == ((1000,),)
    assert run(backend, "SELECT current_user::text LIKE 'codegym\\_games\\_%'").rows == ((True,),)
    backend.close()


def test_a_service_and_a_password_file_reach_a_server(own, tmp_path, monkeypatch):
    monkeypatch.delenv("CODEGYM_POSTGRES_PASSWORD")
    services, passwords = tmp_path / "services", tmp_path / "passwords"
    services.write_text(f"[own]\nhost={own.folder}\nuser=trainer\n")
    passwords.write_text("*:*:*:trainer:right\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    backend = opened(own, service="own", host="", user="")
    assert run(backend, COUNT).rows == ((1000,),)
    assert list(Postgres(service="own").findings()) == []
    backend.close()
    with pytest.raises(codegym.ConfigError, match='definition of service "nosuch" not found'):
        opened(own, service="nosuch", host="", user="")


def test_a_database_stays_and_the_next_run_uses_it(own):
    opened(own).close()
    created = "SELECT oid, datname FROM pg_database ORDER BY oid"
    before = own.ask(created)
    backend = opened(own)
    assert run(backend, COUNT).rows == ((1000,),)
    assert own.ask(created) == before
    backend.close()


def test_a_damaged_database_is_loaded_again(own):
    backend = opened(own)
    name = name_of(backend)
    backend.close()
    own.ask("DELETE FROM medal WHERE medal_id = 8", name)
    backend = opened(own)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


@pytest.mark.parametrize(
    "code",
    [
        "DELETE FROM medal",
        "WITH gone AS (DELETE FROM medal RETURNING 1) SELECT * FROM gone",
        "DROP TABLE medal",
        "CREATE TABLE t (a INT)",
        "SELECT 1 AS a INTO t",
        "SELECT 1 AS a INTO TEMPORARY t",
        "SELECT * FROM medal FOR UPDATE",
        "SELECT * FROM private_matters.public.diary",
        "SELECT * FROM codegym.load",
        "SELECT * FROM pg_authid",
        "SELECT lo_creat(1)",
        'SELECT U&"\\006co_creat"(1)',
        "SELECT query_to_xml('SELECT l' || 'o_creat(1)', true, true, '')",
        "SELECT * FROM ts_stat('SELECT l' || 'o_creat(1)')",
        "SELECT pg_read_file('PG_VERSION')",
        "ALTER ROLE CURRENT_USER PASSWORD 'stolen'",
        "DO $$ BEGIN SET transaction_read_only = off; ALTER ROLE CURRENT_USER PASSWORD 'stolen'; END $$",
        "BEGIN READ WRITE",
    ],
)
def test_all_but_reading_is_refused(own, code):
    backend = opened(own)
    refusals = ("ProgrammingError", "InsufficientPrivilege", "ReadOnlySqlTransaction", "FeatureNotSupported")
    assert run(backend, code).error in refusals
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


@pytest.mark.parametrize(
    ("poison", "probe", "clean"),
    [
        ("SELECT set_config('search_path', 'pg_catalog', false)", "SHOW search_path", "public"),
        ("SELECT pg_advisory_lock(7)", "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory'", 0),
        ("SELECT set_config('statement_timeout', '0', false)", "SHOW statement_timeout", "1750ms"),
        ("SELECT set_config('default_transaction_read_only', 'off', false)", "SHOW transaction_read_only", "on"),
    ],
)
def test_what_a_query_leaves_in_its_session_goes_with_it(own, poison, probe, clean):
    backend = opened(own)
    assert run(backend, poison).ok
    # The server's process needs a moment to end, and holds its locks until then.
    time.sleep(0.1)
    assert run(backend, probe).rows == ((clean,),)
    backend.close()


@pytest.mark.parametrize(
    "code",
    [
        "SELECT pg_sleep(60)",
        ENDLESS,
        "SELECT set_config('statement_timeout', '0', false), pg_sleep(60)",
    ],
)
def test_what_runs_too_long_is_stopped_in_the_server(own, code):
    backend = opened(own)
    execution = run(backend, code)
    assert (execution.error, execution.repeatable) == ("Timeout", False)
    assert execution.message == "the query took longer than 0.5 s (time_limit)"
    running = "SELECT query FROM pg_stat_activity WHERE state = 'active' AND usename LIKE 'codegym%'"
    deadline = time.monotonic() + 5
    while own.ask(running) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert own.ask(running) == []
    backend.close()


def test_a_reading_account_of_the_user_s_is_used(own):
    backend = opened(own, user="maker", reader_user="reader", database_prefix="made_")
    assert run(backend, "SELECT current_user::text").rows == (("reader",),)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_a_reading_account_that_may_do_more_is_refused(own):
    for reader, why in (("snoop", "it is a member of pg_read_all_data"), ("maker", "it may create databases")):
        with pytest.raises(codegym.ConfigError) as caught:
            opened(own, reader_user=reader)
        assert f"the account '{reader}', which runs the model's code, may do more than read" in str(caught.value)
        assert why in str(caught.value)


def test_an_account_that_may_not_create_databases_is_told_what_to_grant(own):
    with pytest.raises(codegym.ConfigError) as caught:
        opened(own, user="weak", database_prefix="weak_")
    for part in ("user 'weak' at ", "may not load a database (42501: ", 'ALTER ROLE "weak" CREATEDB CREATEROLE'):
        assert part in str(caught.value)


def test_a_wrong_password_names_account_and_variable(own, monkeypatch):
    monkeypatch.setenv("CODEGYM_POSTGRES_PASSWORD", "wrong")
    with pytest.raises(codegym.ConfigError) as caught:
        opened(own)
    assert "user 'trainer' at " in str(caught.value)
    assert "it is read from the environment variable CODEGYM_POSTGRES_PASSWORD, which is set" in str(caught.value)
    (finding,) = Postgres(host=str(own.folder), user="trainer").findings()
    assert finding.level == "error"
    assert "password authentication failed" in finding.text


def test_a_missing_variable_and_user_are_named(own):
    with pytest.raises(codegym.ConfigError, match="the environment variable NO_SUCH is not set"):
        opened(own, password_env="NO_SUCH")
    with pytest.raises(codegym.ConfigError, match="user is empty"):
        opened(own, user="")


def test_a_server_that_is_not_there_is_the_machine_s_fault(own, tmp_path):
    with pytest.raises(codegym.BackendError, match=r"postgres: cannot connect at .*none as user 'trainer'"):
        opened(own, host=str(tmp_path / "none"))


def test_a_database_that_codegym_did_not_make_is_left_alone(own):
    backend = opened(own)
    taken = name_of(backend)
    backend.close()
    own.ask("DROP SCHEMA codegym CASCADE", taken)
    with pytest.raises(codegym.ConfigError, match=f"the database {taken} was not made by codegym"):
        opened(own)
    assert own.ask("SELECT COUNT(*) FROM medal", taken) == [(1000,)]
    own.ask(f"DROP DATABASE {taken}")


def test_protections_tell_what_holds_and_what_to_grant(own):
    backend = opened(own)
    findings = list(backend.protections())
    holding = " ".join(finding.text for finding in findings if finding.level == "note")
    missing = " ".join(finding.text for finding in findings if finding.level == "warning")
    for text in ("cannot create tables", "cannot read files", "sessions are read-only", "is stopped in the server"):
        assert text in holding
    for text in ("REVOKE USAGE ON LANGUAGE plpgsql", "SET temp_file_limit = '64MB'", "shows only the clock"):
        assert text in missing
    assert own.ask("SELECT COUNT(*) FROM pg_largeobject_metadata", name_of(backend)) == [(0,)]
    backend.close()


def test_a_session_that_is_ended_by_an_administrator_is_not_the_code_s_fault(own):
    backend = opened(own, time_limit=20.0)
    assert run(backend, "SELECT 1").ok
    pid = backend._sessions["games"]._connection.info.backend_pid
    threading.Timer(0.3, own.ask, (f"SELECT pg_terminate_backend({pid})",)).start()
    with pytest.raises(codegym.BackendError, match="57P01"):
        run(backend, "SELECT pg_sleep(10)")
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_a_crash_of_the_server_is_not_the_code_s_fault(own):
    backend = opened(own, time_limit=20.0)
    assert run(backend, "SELECT 1").ok
    pid = backend._sessions["games"]._connection.info.backend_pid
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(codegym.BackendError):
        run(backend, "SELECT pg_sleep(10)")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            assert run(backend, COUNT).rows == ((1000,),)
            break
        except codegym.BackendError:
            time.sleep(0.1)
    else:
        pytest.fail("the server did not come back")
    backend.close()


def test_a_frozen_server_is_given_up_as_the_machine_s_fault(own):
    backend = opened(own)
    assert run(backend, "SELECT 1").ok
    pid = backend._sessions["games"]._connection.info.backend_pid
    frozen = (own.process.pid, pid)
    for one in frozen:
        os.kill(one, signal.SIGSTOP)
    try:
        with pytest.raises(codegym.BackendError, match="nothing stops it; the server no longer answers"):
            run(backend, "SELECT pg_sleep(10)")
    finally:
        for one in frozen:
            os.kill(one, signal.SIGCONT)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_what_is_not_codegym_s_stands_as_it_was(own):
    opened(own).close()
    assert own.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", "private_matters") == [("diary",)]
    with closing(psycopg.connect(host=str(own.folder), user="weak", password="right", dbname="postgres")) as connection:
        assert connection.execute("SELECT set_config('a.b', 'c', false)").fetchone() == ("c",)
