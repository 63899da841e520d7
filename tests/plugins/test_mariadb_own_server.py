"""Show that the mariadb backend works on a server of the user's, within its grants, and touches nothing else there."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest

import codegym
from codegym_mariadb import Mariadb, server
from codegym_mariadb.connections import YOURS

if not importlib.util.find_spec("MySQLdb") or server.missing_programs():
    REASON = "mysqlclient or mariadbd is not installed: pip install 'codegym[mariadb]', apt-get install mariadb-server"
    if os.environ.get("CI"):
        pytest.fail(REASON, pytrace=False)
    pytest.skip(REASON, allow_module_level=True)

import MySQLdb

GAMES = codegym.Database(
    "games",
    "CREATE TABLE medal (medal_id INTEGER PRIMARY KEY, type VARCHAR(16))",
    {"medal": [(number, "gold") for number in range(1000)]},
)
COUNT = "SELECT COUNT(*) FROM medal"


@pytest.fixture(scope="module")
def socket():
    """The socket of a server with its defaults, as a user may have one, with a database and accounts of theirs."""
    folder = Path(tempfile.mkdtemp(prefix="own-", dir="/dev/shm" if os.path.isdir("/dev/shm") else "/tmp"))
    user = ["--user=mysql"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(folder, "mysql")
    common = ["--no-defaults", f"--datadir={folder / 'data'}", "--innodb-log-file-size=8M", *user]
    install = [server.find_program("mariadb-install-db"), *common, "--skip-test-db"]
    install.append("--auth-root-authentication-method=normal")
    subprocess.run(install, check=True, capture_output=True)
    path = str(folder / "socket")
    command = [server.find_program("mariadbd"), *common, f"--socket={path}", "--skip-networking"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.05)
    for statement in (
        "CREATE DATABASE private_matters",
        "CREATE TABLE private_matters.diary (line TEXT)",
        "CREATE USER trainer@localhost IDENTIFIED BY 'right'",
        r"GRANT ALL PRIVILEGES ON `codegym\_%`.* TO trainer@localhost WITH GRANT OPTION",
        "GRANT CREATE USER ON *.* TO trainer@localhost",
        "CREATE USER weak@localhost IDENTIFIED BY 'right'",
        "CREATE USER reader@localhost IDENTIFIED BY 'right'",
        r"GRANT SELECT ON `codegym\_%`.* TO reader@localhost",
        "CREATE USER writer@localhost IDENTIFIED BY 'right'",
        r"GRANT SELECT, INSERT ON `codegym\_%`.* TO writer@localhost",
        "CREATE USER snoop@localhost IDENTIFIED BY 'right'",
        "GRANT SELECT ON *.* TO snoop@localhost",
    ):
        as_root(path, statement)
    yield path
    process.kill()
    process.wait()
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def passwords(monkeypatch):
    monkeypatch.setenv("CODEGYM_MARIADB_PASSWORD", "right")
    monkeypatch.setenv("CODEGYM_MARIADB_READER_PASSWORD", "right")


def as_root(socket, statement):
    with closing(MySQLdb.connect(unix_socket=socket, user="root")) as connection:
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor.fetchall()


def opened(**settings):
    backend = Mariadb(**{"time_limit": 0.5, **settings})
    try:
        backend.open([GAMES])
    except codegym.CodegymError:
        backend.close()
        raise
    return backend


def run(backend, code):
    return backend.execute(code, codegym.Example("train/0", "", "", "games"))


def test_socket_user_and_password_reach_a_server(socket):
    backend = opened(socket=socket, user="trainer")
    assert run(backend, COUNT).rows == ((1000,),)
    assert run(backend, "SELECT CURRENT_USER() LIKE 'codegym\\_games\\_%'").rows == ((1,),)
    backend.close()


def test_an_option_file_reaches_a_server(socket, tmp_path, monkeypatch):
    monkeypatch.delenv("CODEGYM_MARIADB_PASSWORD")
    option_file = tmp_path / "own.cnf"
    option_file.write_text(f"[client]\nsocket = {socket}\nuser = trainer\npassword = right\n")
    backend = opened(option_file=str(option_file))
    assert run(backend, COUNT).rows == ((1000,),)
    assert list(Mariadb(option_file=str(option_file)).findings()) == []
    backend.close()


def test_a_database_stays_and_the_next_run_uses_it(socket):
    opened(socket=socket, user="trainer").close()
    created = "SELECT MAX(create_time), COUNT(*) FROM information_schema.tables WHERE table_schema LIKE 'codegym%'"
    before = as_root(socket, created)
    time.sleep(1.1)
    backend = opened(socket=socket, user="trainer")
    assert run(backend, COUNT).rows == ((1000,),)
    assert as_root(socket, created) == before
    backend.close()


def test_two_runs_at_once_share_accounts_unless_their_prefixes_differ(socket):
    as_root(socket, r"GRANT ALL PRIVILEGES ON `runb\_%`.* TO trainer@localhost WITH GRANT OPTION")
    # With other settings a backend knows of the first one's lanes as little as another process does.
    backends = [
        opened(socket=socket, user="trainer", **settings)
        for settings in ({}, {"max_rows": 4000}, {"database_prefix": "runb_"})
    ]
    first, second, apart = (run(backend, "SELECT CURRENT_USER()").rows[0][0] for backend in backends)
    assert first == second
    assert apart.startswith("runb_games_")
    for backend in backends:
        assert run(backend, COUNT).rows == ((1000,),)
        backend.close()


def test_many_databases_take_few_connections_of_a_user_s_server(socket):
    many = [codegym.Database(f"d{number}", "CREATE TABLE t (a INTEGER)", {"t": [(number,)]}) for number in range(20)]
    backend = Mariadb(socket=socket, user="trainer")
    backend.open(many)
    for number, database in enumerate(many):
        example = codegym.Example("train/0", "", "", database.name)
        assert backend.execute("SELECT a FROM t", example).rows == ((number,),)
    held = "SELECT COUNT(*) FROM information_schema.processlist WHERE user LIKE 'codegym%'"
    deadline = time.monotonic() + 5
    while as_root(socket, held) != ((YOURS,),) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert as_root(socket, held) == ((YOURS,),)
    backend.close()


def test_a_damaged_database_is_loaded_again(socket):
    backend = opened(socket=socket, user="trainer")
    name = backend._station.provide(GAMES, 0).name
    backend.close()
    with closing(MySQLdb.connect(unix_socket=socket, user="root", autocommit=True)) as connection:
        connection.query(f"DELETE FROM `{name}`.medal WHERE medal_id = 8")
    backend = opened(socket=socket, user="trainer")
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


@pytest.mark.parametrize(
    "code",
    [
        "DELETE FROM medal",
        "DROP TABLE medal",
        "CREATE TABLE t (a INT)",
        "CREATE TEMPORARY TABLE t (a INT)",
        "LOCK TABLES medal READ",
        "SELECT * FROM medal FOR UPDATE INTO OUTFILE '/tmp/out'",
        "SELECT * FROM private_matters.diary",
        "SELECT * FROM mysql.user",
    ],
)
def test_all_but_reading_is_refused(socket, code):
    backend = opened(socket=socket, user="trainer")
    assert run(backend, code).error in ("OperationalError", "ProgrammingError")
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_what_runs_too_long_is_stopped_in_the_server(socket):
    backend = opened(socket=socket, user="trainer")
    for code in (
        "SELECT SLEEP(60)",
        "SET STATEMENT max_statement_time = 0 FOR SELECT SLEEP(60)",
        "BEGIN NOT ATOMIC LOOP DO 1; END LOOP; END",
    ):
        assert run(backend, code).error == "Timeout"
    queries = "SELECT info FROM information_schema.processlist WHERE command = 'Query'"
    deadline = time.monotonic() + 1
    while len(as_root(socket, queries)) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(as_root(socket, queries)) == 1
    backend.close()


def test_a_password_that_code_changed_is_set_back(socket):
    backend = opened(socket=socket, user="trainer")
    run(backend, "SET PASSWORD = PASSWORD('stolen')")
    try:
        assert run(backend, COUNT).rows == ((1000,),)
    except codegym.BackendError:
        assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def protections(**settings):
    backend = opened(user="trainer", **settings)
    findings = list(backend.protections())
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()
    return {finding.text.partition(":")[0]: finding for finding in findings}


def test_check_tells_which_protections_hold_and_what_to_type_for_the_others(socket):
    found = protections(socket=socket)
    missing = {claim: finding.text for claim, finding in found.items() if finding.level == "warning"}
    assert list(missing) == [
        "no value is larger than 32768 bytes (max_text)",
        "the server's memory is held by the kernel",
    ]
    assert "SET GLOBAL max_allowed_packet = 32768" in missing["no value is larger than 32768 bytes (max_text)"]
    assert "MemoryMax=4G" in missing["the server's memory is held by the kernel"]
    assert found["if code changes its account's password, codegym sets it back"].level == "note"
    as_root(socket, "SET GLOBAL max_allowed_packet = 32768")
    assert protections(socket=socket)["no value is larger than 32768 bytes (max_text)"].level == "note"
    as_root(socket, "SET GLOBAL max_allowed_packet = DEFAULT")


def test_check_warns_of_an_account_that_the_lanes_share(socket):
    as_root(socket, "CREATE DATABASE codegym_of_another_run")
    found = protections(socket=socket, reader_user="reader")
    as_root(socket, "DROP DATABASE codegym_of_another_run")
    assert found["other databases cannot be seen"].level == "warning"
    assert "Leave reader_user empty" in found["code cannot change its account's password"].text


def test_check_warns_of_a_connection_that_cannot_kill(socket):
    as_root(socket, "ALTER USER reader@localhost WITH MAX_USER_CONNECTIONS 1")
    backend = opened(socket=socket, user="trainer", reader_user="reader")
    (finding,) = [finding for finding in backend.protections() if finding.text.startswith("sleeps, loops")]
    backend.close()
    as_root(socket, "ALTER USER reader@localhost WITH MAX_USER_CONNECTIONS 0")
    assert finding.level == "warning"
    assert "ALTER USER 'reader'@'localhost' WITH MAX_USER_CONNECTIONS 0" in finding.text


def test_a_reading_account_of_the_user_s_is_used(socket):
    backend = opened(socket=socket, user="trainer", reader_user="reader")
    assert run(backend, "SELECT CURRENT_USER()").rows == (("reader@localhost",),)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


@pytest.mark.parametrize(("reader", "grant"), [("writer", "GRANT SELECT, INSERT ON"), ("snoop", "GRANT SELECT ON *.*")])
def test_a_reading_account_that_may_do_more_is_refused(socket, reader, grant):
    with pytest.raises(codegym.ConfigError) as caught:
        opened(socket=socket, user="trainer", reader_user=reader)
    assert f"the account '{reader}', which runs the model's code, may do more than read" in str(caught.value)
    assert grant in str(caught.value)


def test_a_server_that_lets_everybody_write_is_refused(socket):
    as_root(socket, "GRANT ALL PRIVILEGES ON test.* TO PUBLIC")
    with pytest.raises(codegym.ConfigError, match=r"may do more than read .* ON `test`\.\* TO PUBLIC"):
        opened(socket=socket, user="trainer")
    as_root(socket, "REVOKE ALL PRIVILEGES ON test.* FROM PUBLIC")


def test_an_account_that_may_not_create_databases_is_told_what_to_grant(socket):
    with pytest.raises(codegym.ConfigError) as caught:
        opened(socket=socket, user="weak")
    for part in (
        "user 'weak' at ",
        "may not load a database (1044: Access denied",
        r"GRANT ALL PRIVILEGES ON `codegym\_%`.* TO 'weak'@'localhost' WITH GRANT OPTION",
        "GRANT CREATE USER ON *.* TO 'weak'@'localhost'",
    ):
        assert part in str(caught.value)


def test_a_wrong_password_names_account_and_variable(socket, monkeypatch):
    monkeypatch.setenv("CODEGYM_MARIADB_PASSWORD", "wrong")
    with pytest.raises(codegym.ConfigError) as caught:
        opened(socket=socket, user="trainer")
    assert "user 'trainer' at " in str(caught.value)
    assert "it is read from the environment variable CODEGYM_MARIADB_PASSWORD, which is set" in str(caught.value)
    (finding,) = Mariadb(socket=socket, user="trainer").findings()
    assert finding.level == "error"
    assert "1045: Access denied" in finding.text


def test_a_missing_variable_is_named(socket):
    with pytest.raises(codegym.ConfigError, match="the environment variable NO_SUCH is not set"):
        opened(socket=socket, user="trainer", password_env="NO_SUCH")


def test_a_missing_option_file_and_user_are_named():
    with pytest.raises(codegym.ConfigError, match=r"option_file: there is no file /no/such\.cnf"):
        opened(option_file="/no/such.cnf")
    with pytest.raises(codegym.ConfigError, match="user is empty"):
        opened(socket="/no/such/socket")


def test_a_server_that_is_not_there_is_the_machine_s_fault(tmp_path):
    with pytest.raises(codegym.BackendError, match=r"mariadb: cannot connect at .*none as user 'trainer' .2002: "):
        opened(socket=str(tmp_path / "none"), user="trainer")


def test_a_database_that_codegym_did_not_make_is_left_alone(socket):
    backend = opened(socket=socket, user="trainer")
    taken = backend._station.provide(GAMES, 0).name
    backend.close()
    as_root(socket, f"DROP TABLE `{taken}`.codegym_load")
    with pytest.raises(codegym.ConfigError, match=f"the database {taken} was not made by codegym"):
        opened(socket=socket, user="trainer")
    assert as_root(socket, f"SELECT COUNT(*) FROM `{taken}`.medal") == ((1000,),)
    as_root(socket, f"DROP DATABASE `{taken}`")
