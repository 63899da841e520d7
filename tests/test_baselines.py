"""What no model at all would score: constants, found without executing anything."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from codegym.baselines import baselines, full_marks
from codegym.config import load
from codegym.grading import Grader
from codegym.report import Display, results_markdown
from codegym.run import load_examples, open_lanes
from codegym.types import Example, Execution

Cli = Callable[..., subprocess.CompletedProcess[str]]

RUN_FILE = """
[dataset]
plugin = "temptabqa_sample"
athletes = 40
train_size = 94
test_size = 47
dev_size = 47
[policy]
plugin = "scripted"
completions = ["SELECT 1"]
[backend]
plugin = "sqlite"
[rewards.rems]
"""


@pytest.fixture
def grader(tmp_path: Path) -> Iterator[Grader]:
    file = tmp_path / "run.toml"
    file.write_text(RUN_FILE)
    run = load(file, [])
    with open_lanes(run, Display(Console(quiet=True))) as lanes:
        yield Grader(lanes, run.guards, run.rewards)


def examples_of(tmp_path: Path, split: str) -> list[Example]:
    return load_examples(load(tmp_path / "run.toml", []), [split])[split]


def test_the_best_constant_is_the_best_of_all_answers_of_the_split(grader: Grader, tmp_path: Path) -> None:
    examples = examples_of(tmp_path, "test")
    found = baselines(grader, examples, examples_of(tmp_path, "train"), "ems")

    def exact(answer: str) -> float:
        return sum(grader.score(each, "", "", "", Execution((), ((answer,),))).metrics["ems"] for each in examples)

    scores = {each.answer: exact(each.answer) / len(examples) for each in examples}
    best = found["best_constant"]
    assert best["ems"] == max(scores.values())
    assert scores[best["answer"]] == best["ems"] > 0
    assert (best["n"], best["reward"]) == (len(examples), pytest.approx(1 + 1100 * best["ems"], rel=0.05))


def test_the_dump_finds_most_under_recall_and_is_worth_nothing_under_f1(grader: Grader, tmp_path: Path) -> None:
    dump = baselines(grader, examples_of(tmp_path, "test"), [], "ems")["constant_dump"]
    assert dump["rems"] > 0.5
    assert dump["f1"] < 0.01
    assert dump["ems"] == 0


def test_the_commonest_answer_is_that_of_the_training_questions(grader: Grader, tmp_path: Path) -> None:
    training = examples_of(tmp_path, "train")
    found = baselines(grader, examples_of(tmp_path, "test"), training, "ems")
    assert found["commonest_in_training"]["answer"] == Counter(each.answer for each in training).most_common(1)[0][0]
    assert "commonest_in_training" not in baselines(grader, examples_of(tmp_path, "test"), [], "ems")


def test_an_answer_of_several_parts_is_given_as_rows(grader: Grader) -> None:
    examples = [
        Example(f"test/{number}", "", answer) for number, answer in enumerate(["2012, 2016", "2012, 2016", "5"])
    ]
    best = baselines(grader, examples, [], "ems")["best_constant"]
    assert (best["answer"], best["ems"]) == ("2012, 2016", pytest.approx(2 / 3))


def test_nothing_is_said_of_code_for_there_was_none(grader: Grader, tmp_path: Path) -> None:
    found = baselines(grader, examples_of(tmp_path, "test")[:8], [], "ems")
    assert [name for summary in found.values() for name in summary if "_rate" in name] == []
    assert grader.lanes.counters.executed == 0


def test_full_marks_are_what_the_answers_themselves_earn(grader: Grader, tmp_path: Path) -> None:
    assert full_marks(grader, examples_of(tmp_path, "dev")) == 1101


def test_baselines_stand_below_the_row_of_their_split() -> None:
    answer = "a very long answer | of many words"
    split = {
        "after": {"n": 4, "ems": 0.5, "reward": 1.0},
        "baselines": {"best_constant": {"answer": answer, "ems": 0.25, "reward": 1.0}, "constant_dump": {"reward": 0}},
    }
    assert results_markdown({"name": "mine", "splits": {"test": split}}).splitlines() == [
        "| split | n | EMS |",
        "| --- | ---: | ---: |",
        "| test | 4 | 50.0 |",
        r"| – best constant: a very long answer \|... |  | 25.0 |",
        "| – constant dump |  |  |",
    ]


def test_every_report_carries_them(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN_FILE + "[evaluation]\nlimit = 20\n")
    done = cli("eval", tmp_path / "run.toml", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report["splits"]["test"]["baselines"]) == ["best_constant", "constant_dump", "commonest_in_training"]
    assert "– commonest in training: " in done.stdout


def test_a_run_file_may_do_without_them(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN_FILE + "[evaluation]\nlimit = 4\nbaselines = false\n")
    assert cli("eval", tmp_path / "run.toml", "--out", tmp_path / "out").returncode == 0
    assert "baselines" not in json.loads((tmp_path / "out" / "report.json").read_text())["splits"]["test"]


def test_a_dataset_without_the_split_of_training_goes_without_the_third(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN_FILE + '[evaluation]\nlimit = 4\n[training]\nsplit = "nowhere"\n')
    assert cli("eval", tmp_path / "run.toml", "--out", tmp_path / "out").returncode == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report["splits"]["test"]["baselines"]) == ["best_constant", "constant_dump"]


SHORTNESS = """
from dataclasses import dataclass

import codegym


@dataclass
class Shortness(codegym.Reward):
    '''Pays for short code, and knows no metric.'''

    def score(self, rollout):
        return 100 / len(rollout.code) if rollout.execution.ok else 0.0


@codegym.hookimpl
def codegym_rewards():
    return {"shortness": Shortness}
"""


def test_a_reward_that_wants_code_costs_a_run_its_baselines_and_nothing_else(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "shortness.py").write_text(SHORTNESS)
    run_file = f'plugins = ["shortness.py"]\n{RUN_FILE.replace("rems", "shortness")}[evaluation]\nlimit = 4\n'
    (tmp_path / "run.toml").write_text(run_file)
    done = cli("eval", tmp_path / "run.toml", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert 'warning: test has no baselines, for they are answers without code: reward "shortness" raised' in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["finished"]
    assert "baselines" not in report["splits"]["test"]
    run = load(tmp_path / "run.toml", [])
    with open_lanes(run, Display(Console(quiet=True))) as lanes:
        assert full_marks(Grader(lanes, run.guards, run.rewards), load_examples(run, ["dev"])["dev"]) == 0.0


def test_without_a_metric_that_tells_of_answers_the_reward_is_shown() -> None:
    split = {
        "before": {"n": 4, "error_rate": 0.0, "reward": -1.5},
        "after": {"n": 4, "error_rate": 0.5, "reward": 2.0},
        "baselines": {"constant_dump": {"reward": 0.25}},
    }
    assert results_markdown({"name": "mine", "splits": {"test": split}}).splitlines() == [
        "| split | n | errors | reward |",
        "| --- | ---: | ---: | ---: |",
        "| test | 4 | 0.0 → 50.0 | -1.5 → 2 |",
        "| – constant dump |  |  | 0.25 |",
    ]


def test_an_answer_whose_rows_hold_more_than_cells_is_a_text(grader: Grader) -> None:
    examples = [Example("test/0", "", '[["a", ["b"]]]')]
    assert baselines(grader, examples, [], "ems")["best_constant"]["answer"] == '[["a", ["b"]]]'
