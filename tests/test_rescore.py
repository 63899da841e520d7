"""Stored rollouts are graded again without the model, as a run with those settings would have stored them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from codegym import NOT_RUN, Cell, ConfigError, Example, Execution, Rollout
from codegym.config import load
from codegym.experiment import run_experiment
from codegym.report import Display, Stored, differences, rollout_record, stored, stored_rollouts

Cli = Callable[..., subprocess.CompletedProcess[str]]
EXAMPLE = Example("test/0", "How many?", "2")
CELLS = (
    *(None, True, -(2**70), 0.1, -0.0, float("inf"), -float("inf"), "", "2.00", "inf", "{}", b"", b"\xff\x00"),
    *(Decimal("2.00"), Decimal("-1E+3"), Decimal("NaN"), date(2030, 1, 2), datetime(2030, 1, 2, 3, 4, 5, 6)),
    *(datetime(2030, 1, 2, tzinfo=UTC), time(23, 59, 59, 999_999), timedelta(days=-1, microseconds=7)),
)
RUN_FILE = """
name = "mine"

[dataset]
plugin = "temptabqa_sample"
athletes = 20
test_size = 3

[policy]
plugin = "scripted"
completions = [
    "SELECT name FROM athlete LIMIT 1",
    "SELECT * FROM athlete",
    "```sql\\nSELECT COUNT(*) FROM medal\\n```",
    "SELECT nme FROM athlete",
    "SELECT year FROM medal",
]

[backend]
plugin = "sqlite"

[evaluation]
splits = ["test"]
samples = 5

[rewards.rems]
"""


def rollout(execution: Execution, **fields: Any) -> Rollout:
    return Rollout(EXAMPLE, "SELECT 2", "SELECT 2", execution=execution, **fields)


def write(file: Path, *records: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def read_back(file: Path, execution: Execution) -> Stored:
    [read] = stored(write(file, rollout_record(rollout(execution), moment="train", step=7)), [EXAMPLE])
    assert (read.moment, read.step) == ("train", 7)
    return read


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_a_cell_comes_back_as_it_was(cell: Cell, tmp_path: Path) -> None:
    read = read_back(tmp_path / "rollouts.jsonl", Execution(("a", "b"), ((cell, 1),)))
    [(found, _)] = read.rollout.execution.rows
    assert (type(found), repr(found)) == (type(cell), repr(cell))
    assert read.complete


@pytest.mark.parametrize(
    ("execution", "complete"),
    [
        (Execution(("n",), ((1,),) * 100, seconds=0.5), True),
        (Execution(("n",), ((1,),) * 101), False),
        (Execution(error="Timeout", message="too long", repeatable=False), True),
        (Execution(("n",), ((1,),), truncated=True), True),
        (NOT_RUN, False),
    ],
)
def test_what_was_stored_whole_comes_back_equal(execution: Execution, complete: bool, tmp_path: Path) -> None:
    read = read_back(tmp_path / "rollouts.jsonl", execution)
    assert read.complete == complete
    assert (read.rollout.execution == execution) == (complete or execution is NOT_RUN)


@pytest.mark.parametrize(
    ("cells", "complete"),
    [
        ([1, 2.5, None, "Aar", "Information"], True),
        (["2.00"], False),
        (["2030-01-02"], False),
        (["-1 day, 0:00:07"], False),
        (["nan"], False),
    ],
)
def test_of_an_old_record_a_text_that_may_have_been_a_number_is_doubtful(
    cells: list[Any], complete: bool, tmp_path: Path
) -> None:
    record = rollout_record(rollout(Execution(("n",), ((1,),))))
    execution = {name: value for name, value in record["execution"].items() if name != "repeatable"}
    file = write(tmp_path / "rollouts.jsonl", {**record, "execution": {**execution, "rows": [cells]}})
    [read] = stored(file, [EXAMPLE])
    assert read.rollout.execution.rows == (tuple(cells),)
    assert read.complete == complete


def test_ids_that_the_dataset_lacks_and_records_that_are_no_rollouts_are_named(tmp_path: Path) -> None:
    record = rollout_record(rollout(Execution()))
    file = write(tmp_path / "rollouts.jsonl", record, {**record, "id": "test/8"}, {**record, "id": "test/9"})
    with pytest.raises(ConfigError, match=r"rollouts.jsonl: the dataset has no example test/8, nor 1 more of its ids"):
        stored(file, [EXAMPLE])
    assert len(stored(file, [EXAMPLE], {"test/8", "test/9"})) == len(stored_rollouts(file, [EXAMPLE])) == 1
    write(file, {"id": "test/0", "completion": "SELECT 2", "code": "SELECT 2"})
    with pytest.raises(ConfigError, match=r"the record of test/0 is no rollout: KeyError\('execution'\)"):
        stored(file, [EXAMPLE])


def graded(name: str, *rewards: float, step: int = 1) -> list[tuple[Stored, float]]:
    example = Example(name, "", "")
    return [(Stored(Rollout(example, "", "", reward=reward), "train", step, True), reward) for reward in rewards]


def again(before: list[tuple[Stored, float]], *rewards: float) -> dict[str, Any]:
    old = [each for each, _ in before]
    new = [Rollout(each.rollout.example, "", "", reward=reward) for each, reward in zip(old, rewards, strict=True)]
    return differences(old, new)


def test_groups_whose_best_completion_changes_and_advantages_that_change_sign_are_counted() -> None:
    before = [*graded("train/1", 0, 1, 5), *graded("train/2", 2, 2, 2), *graded("train/1", 1, 0, step=2)]
    found = again(before, 5, 1, 0, 0, 0, 9, 1, 0)
    assert found["groups"] == 3
    assert found["best_changed"] == pytest.approx(1 / 3)  # the first; in the second every one was best before
    assert found["signs_flipped"] == pytest.approx(2 / 8)  # 0 and 5 of the first
    assert found["signs_changed"] == pytest.approx((2 + 3) / 8)  # and all of the second, which had none before
    assert (found["without_variance_before"], found["without_variance_after"]) == pytest.approx((1 / 3, 0))


def test_differences_that_are_but_rounding_are_no_advantages() -> None:
    found = again(graded("train/1", 0.1, 0.1, 0.1), 0.1 + 0.2, 0.3, 0.3)
    assert (found["signs_changed"], found["without_variance_after"]) == (0, 1)


def test_single_completions_make_no_groups_but_an_order() -> None:
    before = [*graded("test/1", 1), *graded("test/2", 2), *graded("test/3", 3)]
    found = again(before, 3, 2, 1)
    assert (found["spearman"], found["kendall"], found["groups"]) == pytest.approx((-1, -1, 0))
    assert "best_changed" not in found
    assert again(before, 1, 1, 1)["spearman"] is None


def evaluated(file: Path, out: Path, *settings: str) -> Path:
    run_experiment(load(file, settings), Display(Console(quiet=True)), train=False, out=out, command=["codegym"])
    return out


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run file, and in `run` that run: three questions, five completions each."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "run.toml").write_text(RUN_FILE)
    evaluated(folder / "run.toml", folder / "run")
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the run, in a copy to work in."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("run")


def records(folder: Path) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in (folder / "rollouts" / "test.before.jsonl").read_text().splitlines()]
    for record in read:
        del record["execution"]["seconds"]
    return read


def rescored(cli: Cli, *arguments: str | Path) -> dict[str, Any]:
    finished = cli("rescore", *arguments, "--out", "rescored")
    assert finished.returncode == 0, finished.stderr
    report: dict[str, Any] = json.loads(Path("rescored/rescore.json").read_text())
    return report


def test_under_its_own_run_file_nothing_changes_and_only_what_was_cut_off_is_executed(cli: Cli, run: Path) -> None:
    report = rescored(cli, run)
    assert (report["reused"], report["executed"]) == (12, 1)  # all years are more than a hundred rows
    assert records(Path("rescored")) == records(run)
    [part] = report["rollouts"].values()
    assert part["before"] == part["after"]
    assert (part["spearman"], part["best_changed"], part["signs_changed"]) == pytest.approx((1, 0, 0))


@pytest.mark.parametrize(
    "change",
    [
        "rewards.rems.executes=7",
        "rewards.exact_match.weight=3",
        "guards.no_select_star.max_length=1000",
        "backend.max_rows=3",
        "dataset.seed=1",
    ],
)
def test_the_rollouts_are_those_that_a_run_with_these_settings_stores(cli: Cli, run: Path, change: str) -> None:
    evaluated(Path("run.toml"), Path("other"), change)
    report = rescored(cli, run, "--with", "run.toml", "--set", change)
    assert records(Path("rescored")) == records(Path("other")) != records(run)
    assert (report["executed"] >= 4) == change.startswith(("backend", "dataset"))


def test_what_a_guard_refused_is_executed_once_nothing_refuses_it(cli: Cli, run: Path) -> None:
    evaluated(Path("run.toml"), Path("guarded"), "guards.no_select_star.max_length=1000")
    report = rescored(cli, "guarded", "--with", "run.toml")
    assert records(Path("rescored")) == records(run)
    [part] = report["rollouts"].values()
    assert (part["before"]["refusal_rate"], part["after"]["refusal_rate"]) == (0.2, 0.0)


def test_fresh_executes_what_is_stored(cli: Cli, run: Path) -> None:
    report = rescored(cli, run, "--fresh")
    assert (report["reused"], report["executed"]) == (0, 5)
    assert records(Path("rescored")) == records(run)


def test_what_was_rescored_can_be_rescored(cli: Cli, run: Path) -> None:
    rescored(cli, run, "--set", "rewards.rems.executes=7")
    finished = cli("rescore", "rescored", "--with", "run.toml", "--out", "back")
    assert finished.returncode == 0, finished.stderr
    assert records(Path("back")) == records(run)


def test_a_local_backend_that_changed_is_asked_again(cli: Cli, run: Path) -> None:
    backend = "import codegym, codegym_sqlite\n\n\nclass Mine(codegym_sqlite.Sqlite):\n    '''SQLite.'''\n\n\n"
    backend += "@codegym.hookimpl\ndef codegym_backends():\n    return {'mine': Mine}\n"
    Path("mine.py").write_text(backend)
    Path("mine.toml").write_text('plugins = ["mine.py"]\n' + RUN_FILE.replace('"sqlite"', '"mine"'))
    evaluated(Path("mine.toml"), Path("local"))
    assert rescored(cli, "local")["executed"] < 5
    Path("mine.py").write_text(backend + "# another\n")
    finished = cli("rescore", "local")
    assert "0 stored answers reused, 5 queries executed" in finished.stdout


def test_the_processes_of_a_training_are_one_row_and_a_torn_line_is_dropped(cli: Cli, run: Path) -> None:
    lines = (run / "rollouts" / "test.before.jsonl").read_text().splitlines(keepends=True)
    (run / "rollouts" / "train.jsonl").write_text("".join(lines[:5]))
    (run / "rollouts" / "train.rank1.jsonl").write_text("".join(lines[5:10]) + lines[10][:50])
    report = rescored(cli, run)
    assert {name: part["n"] for name, part in report["rollouts"].items()} == {"test.before": 15, "train": 10}
    assert sorted(file.name for file in Path("rescored/rollouts").iterdir()) == [
        "test.before.jsonl",
        "train.jsonl",
        "train.rank1.jsonl",
    ]


def test_the_tables_say_what_changed(cli: Cli, run: Path) -> None:
    shown = cli("rescore", run, "--set", "rewards.rems.partial=0", "--set", 'note="a stand-in"').stdout
    for text in ("mine: run as it was graded", "test.before", "→", "groups", "other best", "a stand-in", "reused"):
        assert text in shown


def test_what_cannot_be_rescored_is_said(cli: Cli, run: Path) -> None:
    nothing = cli("rescore", "nowhere", "--with", "run.toml")
    assert nothing.returncode == 2
    assert "nowhere: is no run whose rollouts could be graded again: it has no run.toml" in nothing.stderr
    fewer = cli("rescore", run, "--set", "dataset.test_size=1")
    assert "test.before.jsonl: the dataset has no example test/1, nor 1 more of its ids" in fewer.stderr
    taken = cli("rescore", run, "--out", run)
    assert "--out run: is not empty" in taken.stderr


def test_the_policy_need_not_be_there_any_more(cli: Cli, run: Path) -> None:
    gone = RUN_FILE.replace('"scripted"', '"replay"\nfile = "./gone.jsonl"').partition("completions")
    Path("gone.toml").write_text(gone[0] + gone[2].partition("]")[2])
    finished = cli("rescore", run, "--with", "gone.toml")
    assert finished.returncode == 0, finished.stderr
    assert "12 stored answers reused" in finished.stdout


def test_excluded_examples_are_left_out(cli: Cli, run: Path) -> None:
    Path("exclude.txt").write_text("test/1\n")
    report = rescored(cli, run, "--set", "exclude=./exclude.txt")
    assert {record["id"] for record in records(Path("rescored"))} == {"test/0", "test/2"}
    assert report["rollouts"]["test.before"]["n"] == 10


def test_questions_that_are_others_under_the_same_ids_are_told(cli: Cli, run: Path) -> None:
    same, others = (cli("rescore", run, *change) for change in ([], ["--set", "dataset.seed=1"]))
    warning = "warning: the questions, answers or databases of test are not those that the run was asked"
    assert (warning in same.stdout, warning in others.stdout) == (False, True)


def test_a_file_of_which_all_is_excluded_is_left_out(cli: Cli, run: Path) -> None:
    few = cli("eval", run / "run.toml", "--set", "evaluation.limit=1", "--out", "few")
    assert few.returncode == 0, few.stderr
    Path("exclude.txt").write_text("test/0\n")
    finished = cli("rescore", "few", "--set", "exclude=./exclude.txt")
    assert finished.returncode == 0, finished.stderr
    assert "0 stored answers reused, 0 queries executed" in finished.stdout


def test_findings_of_the_policy_are_not_asked_for(cli: Cli, run: Path) -> None:
    Path("absent.py").write_text(
        "import codegym\n\n\nclass Absent(codegym.Policy):\n    '''Needs what is not there.'''\n\n"
        "    def findings(self):\n        import not_there_at_all\n\n"
        "    def generate(self, examples):\n        return []\n\n\n"
        "@codegym.hookimpl\ndef codegym_policies():\n    return {'absent': Absent}\n"
    )
    other = RUN_FILE.replace('"scripted"', '"absent"').partition("completions")
    Path("absent.toml").write_text('plugins = ["absent.py"]\n' + other[0] + other[2].partition("]")[2])
    finished = cli("rescore", run, "--with", "absent.toml")
    assert finished.returncode == 0, finished.stderr
