"""A profile says how often samples solve each question, and a training is chosen and ordered by it."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from codegym import ConfigError, Example
from codegym.config import load
from codegym.curriculum import arranged
from codegym_temptabqa.sample import TemptabqaSample

Cli = Callable[..., subprocess.CompletedProcess[str]]
SAMPLES, QUESTIONS = 4, 10
WRONG = ("SELECT nme FROM athlete", "SELECT 'nobody'")
RUN_FILE = """
plugins = ["learner.py"]

[dataset]
plugin = "temptabqa_sample"
athletes = 20
train_size = 10
dev_size = 2
test_size = 2

[policy]
plugin = "replay"
file = "./saved.jsonl"

[backend]
plugin = "sqlite"

[rewards.rems]

[evaluation]
batch_size = 12
metric = "ems"
"""
LEARNER = """
import json
from dataclasses import dataclass
from pathlib import Path

import codegym


@dataclass
class Learner(codegym.Policy):
    given: str
    stop_at: int = -1

    def generate(self, examples):
        return ["SELECT 1"] * len(examples)

    def sample(self, examples, seed):
        if examples[0].id == f"train/{self.stop_at}":
            raise KeyboardInterrupt
        return [f"SELECT {seed}, {row}" for row, _ in enumerate(examples)]

    def train(self, examples, grade, job):
        Path(self.given).write_text(json.dumps([job.ordered, [example.id for example in examples]]))


@codegym.hookimpl
def codegym_policies():
    return {"learner": Learner}
"""


def questions() -> list[Example]:
    return TemptabqaSample(athletes=20, train_size=QUESTIONS).load("train")


def rate(row: int) -> float:
    """Return the share of the saved samples of a question that are right: 0, a quarter, ... 1, and from the start."""
    return row % 5 / 4


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run file whose policy gives saved samples: of question n, n modulo 5 of the four are right."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "learner.py").write_text(LEARNER)
    (tmp_path / "run.toml").write_text(RUN_FILE)
    with (tmp_path / "saved.jsonl").open("w") as saved:
        for row, example in enumerate(questions()):
            for sample in range(SAMPLES):
                completion = example.metadata["target"] if sample < row % 5 else WRONG[sample % 2]
                saved.write(json.dumps({"id": example.id, "completion": completion}) + "\n")
    return tmp_path / "run.toml"


@pytest.fixture
def profile(cli: Cli, file: Path) -> Path:
    """The profile of that run file."""
    made = cli("profile", file, "--samples", "4", "--out", "profile.jsonl")
    assert made.returncode == 0, made.stderr
    return file.with_name("profile.jsonl")


def records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def chosen(file: Path, *settings: str) -> list[str]:
    """Return the ids that are trained on with these settings."""
    run = load(file, [f"training.{setting}" for setting in ("profile=./profile.jsonl", *settings)])
    return [example.id for example in arranged(run, questions())[0]]


def rates(ids: Sequence[str]) -> list[float]:
    return [rate(int(name.rpartition("/")[2])) for name in ids]


def test_a_profile_tells_how_each_question_fared(cli: Cli, file: Path) -> None:
    made = cli("profile", file, "--samples", "4")
    assert made.returncode == 0, made.stderr
    lines = records(file.with_name("run.profile.jsonl"))
    assert [line["id"] for line in lines] == [example.id for example in questions()]
    assert [line["pass_rate"] for line in lines] == [rate(row) for row in range(QUESTIONS)]
    first, second = lines[0], lines[1]
    assert (first["error_rate"], first["distinct_completions"], first["distinct_answers"]) == (0.5, 2, 1)
    assert (second["error_rate"], second["distinct_completions"], second["distinct_answers"]) == (0.25, 3, 2)
    assert (first["samples"], first["metric"], first["model"], first["kind"]) == (4, "ems", "replay", "1")
    assert first["reward"] < second["reward"]
    words = made.stdout.split()
    assert words[words.index("all") :][:7] == ["all", "10", "50.0", "20.0", "[5.7,", "51.0]", "20.0"]
    assert f"to train by it: codegym run {file} --set training.profile=./run.profile.jsonl" in made.stdout


def test_a_profile_of_another_split_and_metric(cli: Cli, file: Path) -> None:
    overrides = ("--set", "policy.plugin=scripted", "--set", 'policy.completions=["SELECT 1"]')
    made = cli("profile", file, *overrides, "--split", "dev", "--metric", "f1", "--samples", "2")
    assert made.returncode == 0, made.stderr
    assert [line["id"] for line in records(Path("run.profile.jsonl"))] == ["dev/0", "dev/1"]
    assert "the samples of each question are all the same: set a temperature above 0" in made.stdout


def test_a_profile_that_was_cut_off_is_gone_on_with_and_is_the_same(cli: Cli, file: Path) -> None:
    learner = ("profile", file, "--set", "policy.plugin=learner", "--set", "policy.given=x", "--samples", "4")
    stopped = cli(*learner, "--set", "policy.stop_at=6", "--out", "stopped.jsonl")
    again = f"codegym {' '.join(map(str, learner))} --set policy.stop_at=6 --out stopped.jsonl"
    assert stopped.returncode == 130
    assert stopped.stderr == f"error: stopped; 6 of 10 questions are in stopped.jsonl; to go on: {again}\n"
    with Path("stopped.jsonl").open("r+b") as cut_off:
        cut_off.truncate(Path("stopped.jsonl").stat().st_size - 40)
    finished = cli(*learner, "--out", "stopped.jsonl")
    assert "stopped.jsonl has 5 of 10 questions already" in finished.stdout
    cli(*learner, "--out", "whole.jsonl")
    assert Path("stopped.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert "open " not in cli(*learner, "--out", "whole.jsonl").stdout


def test_a_line_that_a_crash_cut_off_is_told(
    cli: Cli, file: Path, profile: Path, caplog: pytest.LogCaptureFixture
) -> None:
    profile.write_bytes(profile.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        assert cli("profile", file, "--samples", "4", "--out", profile).returncode == 0
    assert "line 10 is cut off and dropped: what wrote it died there" in caplog.text
    assert len(records(profile)) == QUESTIONS


def test_another_profile_is_never_written_over(cli: Cli, file: Path, profile: Path) -> None:
    refused = cli("profile", file, "--samples", "3", "--out", profile)
    assert refused.returncode == 2
    assert refused.stderr == (
        f"error: --out {profile}: train/0 in it is of another profile (4 samples of replay, by ems), "
        "or of other questions; name a new file\n"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--split", "trian"), "--split trian: there is no such split; did you mean train?"),
        (("--metric", "emz"), "--metric emz: is none that tells a question solved; did you mean ems?"),
        (("--metric", "error_rate"), "--metric error_rate: is none that tells a question solved"),
    ],
)
def test_what_cannot_be_profiled_is_told(cli: Cli, file: Path, arguments: Sequence[str], text: str) -> None:
    refused = cli("profile", file, "--samples", "4", *arguments)
    assert refused.returncode == 2
    assert text in refused.stderr


def test_several_processes_do_not_write_one_profile(cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = cli("profile", file)
    assert (refused.returncode, Path("run.profile.jsonl").exists()) == (2, False)
    assert "a profile is made by one process; start it without torchrun" in refused.stderr


def test_questions_are_left_out_by_their_pass_rate(file: Path, profile: Path) -> None:
    everything = [example.id for example in questions()]
    assert chosen(file) == everything
    assert chosen(file, "min_pass_rate=0.25", "max_pass_rate=0.75") == [
        name for name, passed in zip(everything, rates(everything), strict=True) if 0 < passed < 1
    ]
    twice = chosen(file, "focus=0.5")
    assert twice[:QUESTIONS] == everything
    assert rates(twice[QUESTIONS:]) == [0.25, 0.25]


def test_questions_are_ordered_by_their_pass_rate_and_shuffled_where_it_is_the_same(file: Path, profile: Path) -> None:
    rising = [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1, 1]
    hard = chosen(file, "order=hard_first")
    assert rates(hard) == rising
    assert rates(chosen(file, "order=easy_first")) == rising[::-1]
    orders = set()
    for seed in range(6):
        run = load(file, ["training.profile=./profile.jsonl", "training.order=hard_first", f"seed={seed}"])
        orders.add(tuple(example.id for example in arranged(run, questions())[0]))
    assert len(orders) > 1
    assert all(rates(order) == rising for order in orders)


def test_the_order_reaches_the_policy_and_the_terminal_says_who_is_left_out(
    cli: Cli, file: Path, profile: Path
) -> None:
    learner = ["--set", "policy.plugin=learner", "--set", "policy.given=given.json"]
    by_profile = [*learner, "--set", "training.profile=./profile.jsonl", "--set", "training.min_pass_rate=0.1"]
    trained = cli("run", file, *by_profile, "--set", "training.order=easy_first", "--out", "first")
    assert trained.returncode == 0, trained.stderr
    ordered, ids = json.loads(Path("given.json").read_text())
    assert (ordered, rates(ids)) == (True, [1, 1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25])
    told = "left out 2 with a pass rate below 0.1, 8 of 10 questions are trained on; 2 were never solved by a sample"
    assert f"{profile}: {told}" in trained.stdout
    assert f"warning: {profile} tells how often replay solved the questions, and learner is trained" in trained.stdout
    assert json.loads(Path("first/manifest.json").read_text())["training"]["n"] == 8
    assert cli("run", file, *learner, "--out", "second").returncode == 0
    assert json.loads(Path("given.json").read_text())[0] is False


def test_check_tells_of_the_profile_without_a_model(cli: Cli, file: Path, profile: Path) -> None:
    learner = ["--set", "policy.plugin=learner", "--set", "policy.given=x", "--set", "training.profile=./profile.jsonl"]
    ready = cli("check", file, *learner)
    assert "10 of 10 questions are trained on" in ready.stdout
    refused = cli("check", file, *learner, "--set", "dataset.train_size=12")
    assert refused.returncode == 2
    assert "tells nothing of 2 questions (train/10, train/11) to be trained on" in refused.stdout


def test_a_profile_that_does_not_fit_is_refused_with_what_to_type(file: Path, profile: Path) -> None:
    def complaint(*settings: str, examples: Sequence[Example] = ()) -> str:
        with pytest.raises(ConfigError) as refused:
            arranged(load(file, ["training.profile=./profile.jsonl", *settings]), examples or questions())
        return str(refused.value)

    where = f"{file}: [training] profile:"
    anew = file.with_name("none.jsonl")
    assert complaint("training.profile=./none.jsonl") == (
        f"{where} there is no {anew}; make it: codegym profile {file} --split train --out {anew}"
    )
    more = TemptabqaSample(athletes=20, train_size=11).load("train")
    assert complaint(examples=more) == (
        f"{where} {profile} tells nothing of 1 question (train/10) to be trained on: it was stopped, or is of another "
        "split, limit or dataset. Go on with it, by the same --set as here: "
        f"codegym profile {file} --split train --out {profile}"
    )
    others = TemptabqaSample(athletes=20, train_size=10, prompt="{question}").load("train")
    assert complaint(examples=others) == (
        f"{where} {profile} is of another dataset: prompt, answer or database of 10 questions (train/0, train/1, "
        "train/2, ...) are others now. Make a new one: codegym profile "
        f"{file} --split train --out {file.with_name('profile-2.jsonl')}"
    )
    assert "none of the 10 questions has a pass rate from 0.3 to 0.4; lower min_pass_rate or raise" in complaint(
        "training.min_pass_rate=0.3", "training.max_pass_rate=0.4"
    )


def test_lines_that_are_no_profile_are_named(file: Path, profile: Path) -> None:
    first, *rest = profile.read_text().splitlines()
    damaged = json.dumps(json.loads(first) | {"pass_rate": 1.5})
    profile.write_text("\n".join([damaged, *rest, rest[0], '{"id": "train/9"}']) + "\n")
    with pytest.raises(ConfigError) as refused:
        chosen(file)
    assert [problem.removeprefix(f"{profile}, ") for problem in refused.value.problems] == [
        "train/0: pass_rate: Input should be less than or equal to 1",
        "train/1: comes twice; remove one of the lines",
        "train/9: content: Field required",
    ]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["order=easy_first", "focus=0.5"], "[training]: without a profile there can be no focus or order: make one"),
        (["profile=./x", "min_pass_rate=0.9", "max_pass_rate=0.1"], "min_pass_rate = 0.9 is above max_pass_rate = 0.1"),
        (["profile=./x", "max_pass_rate=80"], "[training] max_pass_rate: must be less than or equal to 1, got 80"),
        (["order=easy"], "[training] order: must be 'shuffled', 'easy_first' or 'hard_first'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(file: Path, settings: Sequence[str], text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(file, [f"training.{setting}" for setting in settings])
    assert text in str(refused.value)
