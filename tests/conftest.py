"""What the tests of the core share: fake distributions, run files, the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from codegym.cli import error_console, main, out_console

if "PYTEST_XDIST_WORKER" in os.environ:  # each has a core of its own; more threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where the real data lies beside the checkout, every test and every command that it calls finds it.
if (Path(__file__).parents[2] / "shared" / "temptabqa-c").is_dir():
    os.environ.setdefault("CODEGYM_DATA", str(Path(__file__).parents[2] / "shared"))

LONGEST = ("test_resume.py", "test_processes.py", "test_faults.py", "test_story.py")
"""Files of tests that take longest: begun first, so that not one of them is left over for a single process."""

RUN_FILE = """
[dataset]
plugin = "temptabqa_sample"
athletes = 20
test_size = 4

[policy]
plugin = "scripted"
completions = ["SELECT name FROM athlete LIMIT 1", "SELECT nme FROM athlete"]

[backend]
plugin = "sqlite"

[rewards.rems]
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """A small run file that works."""
    file = tmp_path / "base.toml"
    file.write_text(RUN_FILE)
    return file


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Install a distribution with one module of the given code, registered as `<name> = <name>_module`."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    modules = []

    def install_distribution(name: str, code: str) -> None:
        module = f"{name}_module"
        modules.append(module)
        information = tmp_path / "site" / f"{name}-1.0.dist-info"
        information.mkdir(parents=True)
        (tmp_path / "site" / f"{module}.py").write_text(code)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[codegym]\n{name} = {module}\n")

    yield install_distribution
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Call the command line in this process: `cli("check", file)`."""
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("COLUMNS", "300")
    for console in (out_console, error_console):  # xdist had a width of its own set when these were made
        monkeypatch.setattr(console, "_width", None)

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = ["codegym", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return subprocess.CompletedProcess(command, int(stopped.value.code or 0), captured.out, captured.err)

    yield call
    signal.signal(signal.SIGTERM, handler)
