"""The command line says what happened in one line each and exits with a code that says whose mistake it was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]
BREAKING = """
import sqlite3
from dataclasses import dataclass

import codegym


@dataclass
class Down(codegym.Backend):
    def execute(self, code, example):
        raise codegym.BackendError("the server at /run/db.sock does not answer")


@dataclass
class Careless(codegym.Reward):
    def score(self, rollout):
        return 1 / len(rollout.execution.rows)


@dataclass
class Questions(codegym.Dataset):
    fault: str = ""

    def load(self, split):
        if self.fault == "raises":
            raise KeyError("answers")
        return [codegym.Example("../17" if self.fault == "id" else f"{split}/0", "Which?", "1")]

    def findings(self):
        if self.fault == "warns":
            yield codegym.Finding("warning", "one answer is doubtful")
        if self.fault == "refuses":
            yield codegym.Finding("error", "the answers are not there: type codegym fetch")


@dataclass
class Absent(codegym.Policy):
    def generate(self, examples):
        raise OSError("no weights")


@codegym.hookimpl
def codegym_datasets():
    return {"questions": Questions}


@codegym.hookimpl
def codegym_policies():
    return {"absent": Absent}


@codegym.hookimpl
def codegym_backends():
    return {"down": Down}


@codegym.hookimpl
def codegym_rewards():
    return {"careless": Careless}
"""


@pytest.fixture
def breaking(run_file: Path) -> Path:
    """The working run file with a plugin whose classes break."""
    run_file.with_name("breaking.py").write_text(BREAKING)
    file = run_file.with_name("breaking.toml")
    file.write_text('extends = "base.toml"\nplugins = ["breaking.py"]\n')
    return file


def test_eval_writes_a_folder_and_prints_a_table(cli: Cli, run_file: Path, tmp_path: Path) -> None:
    outcome = cli("eval", run_file, "--out", tmp_path / "out", "--set", "evaluation.limit=2")
    assert outcome.returncode == 0, outcome.stderr
    assert "EMS" in outcome.stdout
    assert f"Everything is in {tmp_path / 'out'}" in outcome.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["splits"]["test"]["before"]["n"] == 2
    assert report["splits"]["test"]["before"]["error_rate"] == 0.5
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["command"][1] == "eval"


def test_check_says_that_a_good_file_is_ready(cli: Cli, run_file: Path) -> None:
    outcome = cli("check", run_file)
    assert outcome.returncode == 0, outcome.stderr
    assert "4 of 4 known good completions get full marks" in outcome.stdout
    assert f"{run_file}: ready to run" in outcome.stdout


def test_every_mistake_in_a_run_file_is_a_line_and_the_code_is_2(cli: Cli, run_file: Path) -> None:
    outcome = cli("check", run_file, "--set", "seed=x", "--set", "backend.max_row=1")
    assert outcome.returncode == 2
    assert outcome.stderr.splitlines() == [
        'error: --set: seed: must be an integer, got "x"',
        'error: --set: [backend] max_row: unknown setting of backend "sqlite"; did you mean max_rows?',
    ]


def test_a_plugins_mistake_is_3_with_its_name_and_line(cli: Cli, breaking: Path, tmp_path: Path) -> None:
    outcome = cli("eval", breaking, "--out", tmp_path / "out", "--set", "rewards.careless.weight=1")
    assert outcome.returncode == 3
    place = where(breaking, "return 1 /")
    assert outcome.stderr == f'error: reward "careless" raised ZeroDivisionError: division by zero ({place})\n'


def test_the_machines_failure_is_4_after_all_attempts(cli: Cli, breaking: Path, tmp_path: Path) -> None:
    arguments = ("--out", tmp_path / "out", "--set", "backend.plugin=down", "--set", "execution.attempts=2")
    outcome = cli("eval", breaking, *arguments)
    assert outcome.returncode == 4
    first, second = outcome.stderr.splitlines()
    assert first == "error: the server at /run/db.sock does not answer (tried 5 times)"
    assert second.startswith(f"error: the machine failed, not the model; what was finished is in {tmp_path / 'out'}: ")
    assert (tmp_path / "out" / "manifest.json").exists()


def where(file: Path, text: str) -> str:
    """Return file and line of a piece of the breaking plugin."""
    return f"{file.with_name('breaking.py')}:{BREAKING[: BREAKING.index(text)].count(chr(10)) + 1}"


def test_a_dataset_or_policy_that_raises_is_named_with_its_table(cli: Cli, breaking: Path) -> None:
    plugin = breaking.with_name("breaking.py")
    arguments = ("eval", breaking, "--set", "dataset.plugin=questions")
    for override, text, error in (
        ("dataset.fault=raises", 'KeyError("answers")', "[dataset], file {}, raised KeyError: 'answers' ({})"),
        ("policy.plugin=absent", 'OSError("no weights")', "[policy], file {}, raised OSError: no weights ({})"),
    ):
        outcome = cli(*arguments, "--set", override, "--out", breaking.parent / override)
        assert outcome.returncode == 3
        assert outcome.stderr == f"error: {error.format(plugin, where(breaking, text))}\n"


def test_an_id_that_is_not_the_splits_is_refused_before_anything_is_written(cli: Cli, breaking: Path) -> None:
    overrides = ("--set", "dataset.plugin=questions", "--set", "dataset.fault=id")
    outcome = cli("eval", breaking, *overrides, "--out", breaking.parent / "out")
    assert outcome.returncode == 3
    assert outcome.stderr.endswith(": an id is test/<row>, not ../17\n")


def test_what_a_plugin_finds_in_its_settings_is_shown_by_check_and_stops_a_run(cli: Cli, breaking: Path) -> None:
    overrides = ("--set", "dataset.plugin=questions", "--set")
    text = "[dataset] the answers are not there: type codegym fetch"
    checked = cli("check", breaking, *overrides, "dataset.fault=refuses")
    assert (checked.returncode, f"error   {text}\n" in checked.stdout) == (2, True)
    stopped = cli("eval", breaking, *overrides, "dataset.fault=refuses")
    assert (stopped.returncode, stopped.stderr) == (2, f"error: {breaking}: {text}\n")
    warned = cli("check", breaking, *overrides, "dataset.fault=warns")
    assert warned.returncode == 0, warned.stderr
    assert "warning [dataset] one answer is doubtful" in warned.stdout


def test_a_dataset_need_not_list_its_splits_to_be_scored(cli: Cli, breaking: Path) -> None:
    overrides = ("--set", "dataset.plugin=questions", "--set", "backend.plugin=down", "--set", "execution.attempts=1")
    outcome = cli("score", breaking, *overrides, "--example", "test/0", "--code", "<think>")
    assert outcome.returncode == 0, outcome.stderr
    assert "refused: there is no code in the completion" in outcome.stdout


def test_run_refuses_a_policy_that_cannot_learn(cli: Cli, run_file: Path) -> None:
    outcome = cli("run", run_file)
    assert outcome.returncode == 2
    expected = f'error: {run_file}: [policy] plugin: "scripted" cannot be trained; evaluate it with codegym eval\n'
    assert outcome.stderr == expected


def test_an_unknown_split_is_told_with_the_nearest(cli: Cli, run_file: Path) -> None:
    outcome = cli("check", run_file, "--set", 'evaluation.splits=["tst"]')
    assert outcome.returncode == 2
    assert "there is no split tst; did you mean test?" in outcome.stdout


def test_score_explains_one_completion(cli: Cli, run_file: Path) -> None:
    outcome = cli("score", run_file, "--example", "test/0", "--code", "SELECT nme FROM athlete")
    assert outcome.returncode == 0, outcome.stderr
    assert "OperationalError: no such column: nme" in outcome.stdout
    assert "rems.error" in outcome.stdout
    unknown = cli("score", run_file, "--example", "test/99", "--code", "SELECT 1")
    assert unknown.returncode == 2
    assert unknown.stderr == "error: --example test/99: the split test has no such example\n"


def test_plugins_lists_what_is_there_what_is_contested_and_what_failed(
    cli: Cli, install: Callable[[str, str], None]
) -> None:
    offer = "import codegym\nfrom codegym_rems import Rems\n\n@codegym.hookimpl\n"
    install("rival", offer + "def codegym_rewards():\n    return {'rems': Rems}\n")
    install("broken", "import nothing_of_this_name\n")
    outcome = cli("plugins")
    assert outcome.returncode == 0
    lines = {line.split()[1]: line for line in outcome.stdout.splitlines() if line.startswith(" ")}
    assert "codegym 0.1.0 (sqlite = codegym_sqlite)" in lines["sqlite"]
    assert outcome.stdout.count("contested: using it is an error") == 2
    text = " ".join(outcome.stdout.split())
    assert "failed: broken 1.0 (broken = broken_module): its import raised ModuleNotFoundError: " in text
    assert "No module named 'nothing_of_this_name'" in text


def test_fetching_what_needs_no_fetching_says_so(cli: Cli) -> None:
    outcome = cli("fetch", "temptabqa_sample")
    assert (outcome.returncode, outcome.stderr) == (2, "error: this dataset has nothing to fetch\n")
    unknown = cli("fetch", "temptabka")
    assert unknown.stderr == 'error: there is no dataset "temptabka"; did you mean temptabqa?\n'


def test_debug_shows_the_traceback(run_file: Path) -> None:
    command = [sys.executable, "-m", "codegym", "--debug", "check", run_file, "--set", "seed=x"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback (most recent call last)" in shown.stderr
    assert "codegym.errors.ConfigError" in shown.stderr


def test_the_exit_code_reaches_the_shell(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "codegym", "eval", tmp_path / "missing.toml"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == f"error: there is no run file {tmp_path / 'missing.toml'}\n"


STUBBORN = """
import signal, time
from codegym import cli

class Stubborn:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)  # Python drops the KeyboardInterrupt that this raises

def command():
    Stubborn()
    time.sleep(10)

signal.signal(signal.SIGINT, signal.default_int_handler)
cli.app = command
cli.main()
"""


def test_ctrl_c_while_an_object_is_destroyed_is_not_lost() -> None:
    stopped = subprocess.run([sys.executable, "-c", STUBBORN], capture_output=True, text=True, timeout=9, check=False)
    assert (stopped.returncode, stopped.stderr) == (130, "error: stopped\n")
