"""Show on real servers that MariaDB comes back after whatever befalls its process, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

import codegym
from codegym.lanes import Lanes
from codegym_mariadb import Mariadb, server
from codegym_mariadb.connections import PRIVATE

if not importlib.util.find_spec("MySQLdb") or server.missing_programs():
    REASON = "mysqlclient or mariadbd is not installed: pip install 'codegym[mariadb]', apt-get install mariadb-server"
    if os.environ.get("CI"):
        pytest.fail(REASON, pytrace=False)
    pytest.skip(REASON, allow_module_level=True)

GAMES = codegym.Database(
    "games",
    "CREATE TABLE medal (medal_id INTEGER PRIMARY KEY, year INTEGER)",
    {"medal": [(number, 2000 + number % 20) for number in range(1000)]},
)
COUNT = "SELECT COUNT(*) FROM medal"


def opened(*databases, **settings):
    backend = Mariadb(**{"time_limit": 0.5, **settings})
    backend.open(databases or [GAMES])
    return backend


def alone(*databases, number=itertools.count(7000), **settings):
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


def eventually(true, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def alive(pid):
    return Path("/proc", str(pid)).exists()


def freeze(pid):
    """Stop a process, and wait until no thread of it runs: the signal reaches them one by one."""
    os.kill(pid, signal.SIGSTOP)
    threads = Path("/proc", str(pid), "task")
    assert eventually(lambda: {(t / "stat").read_text().rpartition(") ")[2][0] for t in threads.iterdir()} == {"T"})


def test_a_query_that_cannot_be_sent_is_not_waited_for_where_another_session_listens_since():
    backend, example, outcomes = alone(), codegym.Example("train/0", "", "", "games"), []
    backend._members[-1].run(COUNT)  # the session that a batch uses first; the next one will get its descriptor
    pid = backend._station._server.pid
    os.kill(pid, signal.SIGKILL)
    # Nobody reaps it before it is asked for; its sockets are closed when its last thread has ended.
    assert eventually(lambda: len(list(Path("/proc", str(pid), "task").iterdir())) == 1)

    def ask():
        with pytest.raises(codegym.BackendError, match=r"Server has gone away|Lost connection"):
            list(backend.execute_many([(COUNT, example)] * 2))
        outcomes.extend(backend.execute_many([(COUNT, example)] * 2))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(20)
    assert [outcome.rows for outcome in outcomes] == [((1000,),)] * 2
    backend.close()


def test_a_dead_server_is_not_the_code_s_fault_and_comes_back():
    backend = alone(GAMES)
    assert run(backend, COUNT).rows == ((1000,),)
    os.kill(backend._station._server.pid, signal.SIGKILL)
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


def test_instances_share_a_server_and_the_last_one_stops_it():
    first, second = (opened(GAMES, max_rows=4999) for _ in range(2))
    assert first._station is second._station
    pid, folder = first._station._server.pid, first._station._server.folder
    first.close()
    assert run(second, COUNT).rows == ((1000,),)
    second.close()
    assert not Path("/proc", str(pid)).exists()
    assert not folder.exists()


@pytest.mark.timeout(120)
def test_a_frozen_server_is_replaced():
    backend = alone(GAMES)
    assert run(backend, COUNT).rows == ((1000,),)
    pid = backend._station._server.pid
    freeze(pid)
    late = run(backend, COUNT)
    assert (late.error, late.repeatable) == ("Timeout", False), "the lanes run it once more"
    assert run(backend, COUNT).rows == ((1000,),)
    assert backend._station._server.pid != pid
    backend.close()


@pytest.mark.timeout(120)
def test_a_server_that_froze_between_two_connections_is_replaced():
    backend = alone(GAMES)
    run(backend, COUNT)
    backend._sessions["games"].close()
    freeze(backend._station._server.pid)
    with pytest.raises(codegym.BackendError, match="mariadb: cannot open a session: 2013"):
        run(backend, COUNT)
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_a_server_whose_socket_is_gone_is_not_the_code_s_fault():
    backend = alone(GAMES)
    run(backend, COUNT)
    backend._sessions["games"].close()
    backend._station._server.socket.unlink()
    assert run(backend, COUNT).rows == ((1000,),)
    backend.close()


def test_a_damaged_data_folder_is_replaced_and_loaded_again():
    backend = alone(GAMES)
    data, private = backend._station._server.folder / "data", backend._station._server
    private.kill()
    (data / "ibdata1").write_bytes(b"damaged" * 1000)
    failures = 0
    for _ in range(4):
        try:
            assert run(backend, COUNT).rows == ((1000,),)
            break
        except codegym.BackendError:
            failures += 1
    assert 0 < failures < 4
    assert not data.exists(), "the damaged one is gone"
    backend.close()


def test_after_sigkill_of_the_keeper_there_is_another_server_with_the_data():
    backend = alone(GAMES)
    private = backend._station._server
    folder, pid = private.folder, private.pid
    assert run(backend, COUNT).rows == ((1000,),)
    keeper = int(Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2].split()[1])
    os.kill(keeper, signal.SIGKILL)
    assert eventually(lambda: not alive(pid))
    with pytest.raises(codegym.BackendError):
        run(backend, COUNT)
    assert run(backend, COUNT).rows == ((1000,),)
    assert not folder.exists()
    backend.close()


def test_whoever_asks_a_stopped_server_is_told_so():
    backend = alone(GAMES)
    station = backend._station
    session = backend._sessions["games"]
    assert run(backend, COUNT).ok
    backend.close()
    with pytest.raises(codegym.BackendError, match="mariadb: the private server has been stopped, or was not started"):
        station.address  # noqa: B018
    assert not station.watchdog.kill(session.flight.account, session.flight.connection_id, "QUERY")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user than root's processes")
def test_a_server_that_was_taken_over_cannot_have_root_write_elsewhere(tmp_path):
    backend = alone(GAMES)
    private = backend._station._server
    assert run(backend, COUNT).rows == ((1000,),)
    (tmp_path / "of-root").write_text("of root")
    user = private._program.user
    for name in ("log", "owner", "keeper"):
        for command in (["ln", "-sf", tmp_path / "of-root", name], ["mv", name, "elsewhere"], ["rm", "-f", name]):
            done = subprocess.run(command, cwd=private.folder, user=user, group=user, capture_output=True, check=False)
            assert b"not permitted" in done.stderr, command
    private.kill()
    with pytest.raises(codegym.BackendError):
        run(backend, COUNT)
    assert run(backend, COUNT).rows == ((1000,),)
    assert (tmp_path / "of-root").read_text() == "of root"
    backend.close()


MANY = [
    codegym.Database(f"d{number}", "CREATE TABLE t (a INTEGER)", {"t": [(number,), (number + 1,)]})
    for number in range(80)
]


def test_many_databases_take_few_connections():
    backend = alone(*MANY)
    asked = [("SELECT SUM(a) FROM t", codegym.Example("train/0", "", "", database.name)) for database in MANY]
    with administrator(backend) as connection:

        def held():
            return rows(connection, "SELECT COUNT(*) FROM information_schema.processlist WHERE user LIKE 'codegym%'")

        for code, example in asked:
            number = int(example.database[1:])
            assert backend.execute(code, example).rows == ((2 * number + 1,),)
            assert backend.execute("SELECT a FROM nosuch", example).error, "which makes the session as new"
        # The server needs a moment to end a connection that was closed.
        assert eventually(lambda: held() == ((PRIVATE,),)), held()
        # Out of order, four at a time, and so that each finds sessions of others to close.
        shuffled = [asked[37 * number % 80] for number in range(400)]
        for (_, example), execution in zip(shuffled, backend.execute_many(shuffled), strict=True):
            assert execution.rows == ((2 * int(example.database[1:]) + 1,),)
        assert eventually(lambda: held() == ((PRIVATE,),)), held()
    backend.close()


def test_code_that_kills_the_server_is_a_crash_however_many_databases_are_connected():
    deadly = "SELECT medal.medal.year FROM medal JOIN place USING (medal_id)"  # of this MariaDB 10.11 dies
    schema = "CREATE TABLE medal (medal_id INTEGER, year INTEGER); CREATE TABLE place (medal_id INTEGER)"
    tables = {"medal": [(1, 2000)], "place": [(1,)]}
    databases = [codegym.Database(f"games{number}", schema, tables) for number in range(9)]
    examples = [codegym.Example(f"train/{number}", "", "", f"games{number}") for number in range(9)]
    with Lanes(lambda: Mariadb(max_rows=6999), databases, attempts=7) as lanes:
        assert all(answer.rows == ((1,),) for answer in lanes.execute([(COUNT, example) for example in examples]))
        [outcome] = lanes.execute([(deadly, examples[4])])
    if outcome.error == "OperationalError":
        pytest.skip("this MariaDB survives that query")
    assert outcome.error == "Crash"


@pytest.mark.skipif(not resource.getrlimit(resource.RLIMIT_CORE)[1], reason="nobody may write a core file here")
def test_a_server_that_code_kills_leaves_no_core_file():
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        backend = alone(GAMES)
        backend.execute(COUNT, codegym.Example("train/0", "", "", "games"))
        limits = Path(f"/proc/{backend._members[0].server_process}/limits").read_text()
        backend.close()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    assert re.search(r"Max core file size\s+0\s+0\s", limits)


def test_a_connection_with_a_query_under_way_is_not_closed_for_another(monkeypatch):
    monkeypatch.setattr("codegym_mariadb.connections.PRIVATE", 4)
    backend = alone(*MANY[:12], time_limit=5.0)
    examples = [codegym.Example("train/0", "", "", database.name) for database in MANY[:12]]
    asked = [("SELECT SLEEP(0.6), MAX(a) FROM t", examples[0])] + [
        ("SELECT SLEEP(0.02), MAX(a) FROM t", e) for e in examples
    ] * 2
    answers = [execution.rows for execution in backend.execute_many(asked)]
    assert answers == [((0, int(example.database[1:]) + 1),) for _, example in asked]
    assert len(backend._members[0]._connections._open) == 4
    backend.close()


@pytest.mark.parametrize("name", server.CEILINGS)
def test_no_session_raises_what_it_may_use(ceilings, name):
    variable = name.replace("-", "_")
    for value in (2**64 - 1, 2**31 - 1):
        [[found]] = rows(ceilings, f"SET STATEMENT {variable} = {value} FOR SELECT @@{variable}")
        assert found == min(value, number(server.CEILINGS[name]))


def number(text):
    return int(text[:-1]) * {"K": 2**10, "M": 2**20}[text[-1]] if text[-1].isalpha() else int(text)


@pytest.fixture(scope="module")
def ceilings():
    backend = alone(GAMES)
    with administrator(backend) as connection:
        yield connection
    backend.close()


def test_a_full_disk_under_the_server_is_the_machine_s_fault_and_passes(monkeypatch):
    with tempfile.TemporaryDirectory() as disk:
        mount = ["mount", "-t", "tmpfs", "-o", "size=70m", "tmpfs", disk]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("a small file system cannot be mounted here: that takes root on Linux")
        try:
            monkeypatch.setattr("codegym.server.SHARED_MEMORY", Path(disk))
            monkeypatch.setattr("codegym.server.SHARED_MEMORY_BYTES", 0)
            backend = alone(GAMES, time_limit=5.0)
            fill(Path(disk, "filler"))
            assert run(backend, COUNT).rows == ((1000,),), "what needs no room goes on"
            with pytest.raises(codegym.BackendError, match="1021: Disk got full"):
                run(backend, "SELECT DISTINCT a.medal_id, b.medal_id, REPEAT('x', 600) FROM medal a, medal b")
            assert run(backend, COUNT).rows == ((1000,),)
            Path(disk, "filler").unlink()
            assert run(backend, COUNT).rows == ((1000,),)
            backend.close()
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)


def fill(path):
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


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
print(backend._station._server.pid, backend._station._server.folder, flush=True)
sys.stdin.readline()
assert backend.execute("SELECT a + 1 FROM t", codegym.Example("x/0", "", "", "d")).rows == ((2,),)
backend.close()
print("closed", flush=True)
"""


def owner(**environment):
    return subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_killed_run_leaves_neither_server_nor_folder():
    process = owner()
    pid, folder = process.stdout.readline().split()
    # The thread that opened has ended; the server must not have ended with it.
    time.sleep(0.2)
    assert alive(pid)
    process.kill()
    process.communicate()
    assert eventually(lambda: not alive(pid))
    assert eventually(lambda: not Path(folder).exists())


def test_ranks_of_one_node_share_a_server_and_what_is_loaded():
    ranks = [owner(LOCAL_RANK=str(rank)) for rank in range(2)]
    (pid, folder), same = (rank.stdout.readline().split() for rank in ranks)
    assert same == [pid, folder]
    for rank, left in zip(ranks, (True, False), strict=True):
        assert rank.communicate("go on\n")[0] == "closed\n"
        assert alive(pid) is left
    assert not Path(folder).exists()
