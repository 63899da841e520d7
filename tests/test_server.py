"""A private server starts when needed, comes back when killed, is shared by ranks, and goes with its last user."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from codegym import BackendError, PrivateServer, ServerProgram
from codegym import server as server_module

SERVE = """
import socket, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
if (folder / "data" / "broken").exists():
    sys.exit("the data are damaged")
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(folder / "socket"))
listener.listen()
while True:
    listener.accept()[0].close()
"""
INSTALL = "import sys; from pathlib import Path; Path(sys.argv[1], 'installed').write_text('yes')"
PROGRAM = ServerProgram(
    "example",
    command=(sys.executable, "-c", SERVE, "{folder}"),
    install=(sys.executable, "-c", INSTALL, "{data}"),
    folders=("temporary",),
)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folders and cache of this test alone; the path of a socket has to be short."""
    with tempfile.TemporaryDirectory() as memory:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(server_module, "SHARED_MEMORY", Path(memory))
        monkeypatch.setattr(server_module, "SHARED_MEMORY_BYTES", 0)
        folders = Path(memory) / f"codegym-example-{os.geteuid()}"
        yield folders
        assert soon(lambda: not list(folders.glob("run-*"))), "nothing is left behind"


@pytest.fixture
def server(places: Path) -> Iterator[PrivateServer]:
    server = PrivateServer(PROGRAM)
    yield server
    server.stop()


def alive(pid: int) -> bool:
    return server_module._runs(pid)


def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_server_starts_when_it_is_needed_and_says_so_once(server: PrivateServer) -> None:
    assert server.ensure_running()
    assert alive(server.pid)
    assert (server.folder / "data" / "installed").read_text() == "yes"
    assert (server.folder / "temporary").is_dir()
    assert not server.ensure_running()
    assert server.generation == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_frozen_server_comes_back_on_the_same_data(server: PrivateServer, number: signal.Signals) -> None:
    server.ensure_running()
    (server.folder / "data" / "loaded").touch()
    pid = server.pid
    os.kill(pid, number)
    server.kill(server.generation)
    assert server.ensure_running()
    assert server.pid != pid
    assert server.generation == 2
    assert (server.folder / "data" / "loaded").exists()


def test_whoever_kills_too_late_does_not_kill_the_next_one(server: PrivateServer) -> None:
    server.ensure_running()
    server.kill(1)
    server.ensure_running()
    pid = server.pid
    server.kill(1)
    assert not server.ensure_running()
    assert server.pid == pid


def test_stopping_leaves_neither_process_nor_folder(server: PrivateServer, places: Path) -> None:
    server.ensure_running()
    pid = server.pid
    server.stop()
    assert not alive(pid)
    assert list(places.glob("run-*")) == []
    assert server.ensure_running(), "and it can be started again"


def test_what_was_installed_once_is_copied_from_the_cache(server: PrivateServer, tmp_path: Path) -> None:
    server.ensure_running()
    [template] = (tmp_path / "cache" / "codegym").glob("example-*[!k]")
    (template / "from the cache").touch()
    other = PrivateServer(PROGRAM)
    other.ensure_running()
    assert (other.folder / "data" / "from the cache").exists()
    assert other.pid != server.pid
    other.stop()


def test_a_cache_that_cannot_be_written_is_done_without(
    server: PrivateServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert server.ensure_running()
    assert (server.folder / "data" / "installed").exists()


def test_a_server_that_does_not_start_is_the_machine_s_fault_and_tells_the_end_of_its_log(
    server: PrivateServer, places: Path
) -> None:
    server.ensure_running()
    (server.folder / "data" / "broken").touch()
    server.kill()
    expected = "example: the private server did not start: it ended with status 1: the data are damaged"
    with pytest.raises(BackendError, match=expected):
        server.ensure_running()
    assert server.ensure_running(), "the next attempt begins with new data"
    assert len(list(places.glob("run-*"))) == 1


def test_an_installer_that_fails_tells_why_and_leaves_nothing(places: Path) -> None:
    broken = ServerProgram("example", PROGRAM.command, (sys.executable, "-c", "import sys; sys.exit('no space')"))
    with pytest.raises(BackendError, match=r"example: the private server did not start: python\S* failed: no space"):
        PrivateServer(broken).ensure_running()
    assert list(places.glob("run-*")) == []


def test_a_full_disk_is_the_machine_s_fault_and_is_named(places: Path) -> None:
    disk = places.parent
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here: that takes root on Linux")
    try:
        fill = "import sys; from pathlib import Path; Path(sys.argv[1], 'installed').write_bytes(bytes(200_000))"
        large = ServerProgram("example", PROGRAM.command, (sys.executable, "-c", fill, "{data}"))
        with pytest.raises(BackendError, match=rf"(?s)No space left.*its folder stood in {disk}, where 0 MiB are free"):
            PrivateServer(large).ensure_running()
        assert not list(places.glob("run-*"))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_path_too_long_for_a_socket_is_said(server: PrivateServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "LONGEST_SOCKET_PATH", 10)
    with pytest.raises(BackendError, match=r"the path of its socket is too long: .*; set TMPDIR to a shorter one"):
        server.ensure_running()


USER = """
import sys, time
from pathlib import Path
from codegym import PrivateServer, ServerProgram, server
server.SHARED_MEMORY, server.SHARED_MEMORY_BYTES = Path(sys.argv[1]), 0
private = PrivateServer(ServerProgram(*eval(sys.argv[2])))
private.ensure_running()
print(private.pid, private.folder, flush=True)
sys.stdin.readline()
private.stop()
"""


@pytest.fixture
def user(places: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that uses a server until it reads a line."""
    started: list[subprocess.Popen[str]] = []
    settings = repr((PROGRAM.name, PROGRAM.command, PROGRAM.install, PROGRAM.folders))

    def start(**environment: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", USER, str(places.parent), settings],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment},
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def told(process: subprocess.Popen[str]) -> tuple[int, Path]:
    assert process.stdout is not None
    pid, folder = process.stdout.readline().split()
    return int(pid), Path(folder)


def test_not_even_sigkill_of_its_user_leaves_a_server(user: Callable[..., subprocess.Popen[str]]) -> None:
    process = user()
    pid, folder = told(process)
    process.kill()
    assert soon(lambda: not alive(pid))
    assert soon(lambda: not folder.exists())


def test_ranks_of_one_launcher_share_a_server_until_the_last_has_left(
    user: Callable[..., subprocess.Popen[str]],
) -> None:
    ranks = [user(LOCAL_RANK=str(rank)) for rank in range(2)]
    first, second = (told(rank) for rank in ranks)
    assert first == second
    ranks[0].communicate("leave\n")
    assert alive(first[0])
    ranks[1].communicate("leave\n")
    assert not alive(first[0])
    assert not first[1].exists()


def test_processes_that_no_launcher_started_do_not_share(user: Callable[..., subprocess.Popen[str]]) -> None:
    assert told(user())[0] != told(user())[0]


def test_after_sigkill_of_the_keeper_the_next_start_cleans_up(server: PrivateServer, places: Path) -> None:
    server.ensure_running()
    pid, folder = server.pid, server.folder
    [keeper] = keepers(folder)
    os.kill(keeper, signal.SIGKILL)
    if sys.platform == "linux":
        assert soon(lambda: not alive(pid))
    assert server.ensure_running(), "its user gets another"
    assert not folder.exists()
    assert len(list(places.glob("run-*"))) == 1


def test_what_several_threads_need_at_once_is_started_once(server: PrivateServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(lambda _: server.ensure_running(), range(8))) == [False] * 7 + [True]
    assert server.generation == 1


def test_a_rank_that_joins_while_the_last_one_leaves_gets_a_server(
    user: Callable[..., subprocess.Popen[str]],
) -> None:
    leaving = user(LOCAL_RANK="0")
    told(leaving)
    for rank in range(1, 6):
        joining = user(LOCAL_RANK=str(rank))
        leaving.communicate("leave\n")
        pid, folder = told(joining)
        assert alive(pid)
        assert folder.exists()
        leaving = joining


def test_a_forked_child_may_not_use_the_server_of_its_parent(server: PrivateServer) -> None:
    server.ensure_running()
    child = os.fork()
    if not child:
        try:
            server.stop()
            server.ensure_running()
        except BackendError as error:
            os._exit(7 if "cannot be used in a forked process" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert alive(server.pid)


def test_a_folder_that_another_keeper_owns_and_a_user_at_a_terminal_are_left_alone(
    server: PrivateServer, places: Path
) -> None:
    leftover = places / "run-of-a-killed-run"
    leftover.mkdir(parents=True)
    other = PrivateServer(PROGRAM)
    other.ensure_running()
    assert not leftover.exists(), "nobody owned it"
    shell, terminal = pty.fork()
    if not shell:
        os.chdir(other.folder)
        os.execvp("sleep", ["sleep", "60"])
    forgotten = subprocess.Popen(["sleep", "60"], cwd=other.folder, start_new_session=True)
    assert soon(lambda: os.readlink(f"/proc/{shell}/cwd") == str(other.folder))
    server.ensure_running()
    assert alive(other.pid)
    assert forgotten.poll() is None
    other.kill()
    assert forgotten.wait(10) == -signal.SIGKILL, "it holds files of the dead server"
    assert alive(shell)
    os.kill(shell, signal.SIGKILL)
    os.waitpid(shell, 0)
    os.close(terminal)
    other.stop()


def test_what_stands_in_the_place_of_a_keeper_s_file_is_neither_followed_nor_waited_for(
    server: PrivateServer, places: Path, tmp_path: Path
) -> None:
    for name in ("run-with-a-link", "run-with-a-pipe"):
        (places / name).mkdir(parents=True)
    (places / "run-with-a-link" / "owner").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(places / "run-with-a-pipe" / "owner")
    server.ensure_running()
    assert not (tmp_path / "elsewhere").exists()
    assert list(places.glob("run-with-*")) == []


def test_a_server_that_does_not_run_has_no_folder(server: PrivateServer) -> None:
    with pytest.raises(BackendError, match="example: the private server has been stopped, or was not started"):
        _ = server.socket
    server.ensure_running()
    assert server.socket == server.folder / "socket"
    server.stop()
    with pytest.raises(BackendError, match="example: the private server has been stopped, or was not started"):
        _ = server.folder


def keepers(folder: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in command and any(part.endswith(b"keeper.py") for part in command):
            found.append(int(process.name))
    return found
