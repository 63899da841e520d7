"""What is watched while a policy trains: distinct queries, the gap between reward and dev, and what is behind it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codegym.report.page import page
from codegym.report.plots import picture_of_training
from codegym.roles import Reward
from codegym.settings import WeightedReward
from codegym.types import Example, Execution, Rollout
from codegym.watching import Behind, Watch, behind, divergence_record, shape_of, told_apart

Cli = Callable[..., subprocess.CompletedProcess[str]]


class FirstWord(Reward):
    """Knows a query by its first word; an empty shape says that it knows nothing of it."""

    def score(self, rollout: Rollout) -> float:
        return 0.0

    def shape(self, rollout: Rollout) -> str:
        return "" if rollout.code == "?" else rollout.code.partition(" ")[0]


REWARDS = [WeightedReward("first", 1.0, FirstWord())]


def rollout(code: str, reward: float = 0.0, example: str = "train/0", ems: float = 0.0) -> Rollout:
    execution = Execution(("n",), ((1,),))
    return Rollout(Example(example, "", ""), code, code, "", execution, {}, {"ems": ems}, reward)


def first_word(rollout: Rollout) -> str:
    return shape_of(REWARDS, rollout)


def test_the_mean_of_distinct_queries_is_their_number_over_the_completions_of_each_question() -> None:
    graded = [rollout(code) for code in ("a 1", "a 2", "b 1", "?")] + [rollout("a 1", example="train/1")] * 4
    figures = [each.metrics["distinct_queries"] for each in told_apart(graded, REWARDS)]
    assert figures == [0.5, 0.5, 1, 1, 0.25, 0.25, 0.25, 0.25]
    assert sum(figures) == 3 + 1


def test_of_a_reward_that_knows_no_shapes_the_code_tells_queries_apart() -> None:
    assert shape_of(REWARDS, rollout("?")) == "?"
    assert shape_of([], rollout("a 1")) == "a 1"


def test_the_gap_is_reward_as_a_fraction_of_full_marks_minus_the_last_dev_figure() -> None:
    watch = Watch("ems", full_marks=1000.0)
    assert watch.stepped(9, {"reward": 500.0}) == {}  # dev is not yet known
    watch.evaluated(1, [1.0, 0.0, 0.0, 0.0])
    assert watch.stepped(9, {"reward": 500.0}) == {"gap": 0.25}
    assert watch.stepped(9, {"loss": 1.0}) == {}
    unknown = Watch("ems", full_marks=0.0)
    unknown.evaluated(0, [1.0])
    assert unknown.stepped(9, {"reward": 500.0}) == {}


def test_dev_is_measured_by_the_metric_with_rates_counting_downwards_and_rewards_as_a_fraction() -> None:
    assert Watch("ems", 10.0).value({"ems": 0.5}, 7.0) == 0.5
    assert Watch("error_rate", 10.0).value({"error_rate": 0.5}, 7.0) == -0.5
    assert Watch("reward", 10.0).value({"ems": 0.5}, 7.0) == 0.7
    assert Watch("reward", 0.0).value({}, 7.0) == 7.0


GOOD, BAD = [1.0] * 15 + [0.0] * 5, [1.0] * 5 + [0.0] * 15


def trained(watch: Watch, evaluations: list[tuple[list[float], list[float]]]) -> list[int]:
    """Tell a watch of evaluations, each with the rewards of the steps before it; return at which one it spoke."""
    spoke, step = [], 0
    for number, (rewards, values) in enumerate(evaluations):
        for reward in rewards:
            step += 1
            watch.stepped(step, {"reward": reward})
        if watch.evaluated(step, values):
            spoke.append(number)
    return spoke


def test_it_speaks_once_when_reward_rises_while_dev_falls() -> None:
    watch = Watch("ems", 1000.0)
    assert trained(watch, [([], GOOD), ([100, 110], GOOD), ([300, 320], BAD), ([400, 400], BAD)]) == [2]
    found = watch.divergence
    assert found is not None
    assert (found.since, found.step, found.reward, found.dev) == (2, 4, (105.0, 310.0), (0.75, 0.25))
    assert found.window == ((0, 2), (2, 4))


def test_a_policy_that_cheats_from_the_first_step_on_is_seen_at_the_first_evaluation() -> None:
    watch = Watch("ems", 1000.0)
    assert trained(watch, [([], GOOD), ([100, 110, 300, 320], BAD)]) == [1]
    assert watch.divergence is not None
    assert watch.divergence.window == ((0, 2), (2, 4))


def test_it_looks_back_to_the_best_evaluation_not_to_the_one_before() -> None:
    slowly = [[1.0] * share + [0.0] * (20 - share) for share in (10, 18, 16, 14, 12)]
    evaluations = [([100 + 10 * number, 102 + 10 * number], values) for number, values in enumerate(slowly)]
    watch = Watch("ems", 1000.0)
    assert trained(watch, [([], slowly[0]), *evaluations[1:]]) == [3]
    assert watch.divergence is not None
    assert watch.divergence.since == 2


@pytest.mark.parametrize(
    ("case", "last"),
    [
        ("both rise", ([300, 320], [1.0] * 20)),
        ("both fall", ([50, 40], BAD)),
        ("one question of twenty is lost", ([300, 320], [1.0] * 14 + [0.0] * 6)),
        ("the steps differ more among themselves", ([10, 400], BAD)),
        ("nothing was trained", ([], BAD)),
    ],
)
def test_it_says_nothing_where(case: str, last: tuple[list[float], list[float]]) -> None:
    assert trained(Watch("ems", 1000.0), [([], GOOD), ([100, 110], GOOD), last]) == [], case


def test_one_step_between_evaluations_does_not_tell_how_much_steps_differ() -> None:
    noisy = [([], GOOD), ([100], GOOD), ([150], GOOD), ([90], GOOD), ([140], BAD)]
    assert trained(Watch("ems", 1000.0), noisy) == []
    assert trained(Watch("ems", 1000.0), [*noisy[:-1], ([300], BAD)]) == [4]


def test_a_watch_that_is_told_what_was_recorded_knows_what_the_first_one_did() -> None:
    evaluations = [([], GOOD), ([100, 110], GOOD), ([300, 320], BAD)]
    watch, again = Watch("ems", 1000.0), Watch("ems", 1000.0)
    trained(watch, evaluations)
    metrics: list[dict[str, Any]] = [{"step": 0, "dev": {}}, {"step": 1, "reward": 100}, {"step": 2, "reward": 110}]
    metrics += [{"step": 2, "dev": {}}, {"step": 3, "reward": 300}, {"step": 4, "reward": 320}, {"step": 4, "dev": {}}]
    dev = [
        {"step": step, "metrics": {"ems": value}, "reward": 0.0}
        for step, (_, values) in zip((0, 2, 4), evaluations, strict=True)
        for value in values
    ]
    assert again.replay(metrics, dev) == watch.divergence
    assert again.stepped(9, {"reward": 500.0}) == watch.stepped(9, {"reward": 500.0}) == {"gap": 0.25}
    assert again.evaluated(5, BAD) is None  # it was said before
    broken_off = [{"step": 2, "metrics": {"ems": 1.0}, "reward": 0.0}] * 7
    sized = [{**each, "dev": {"n": 20}} if "dev" in each else each for each in metrics]
    assert Watch("ems", 1000.0).replay(sized, [*dev[:20], *broken_off, *dev[20:]]) == watch.divergence


def test_the_query_behind_it_is_the_one_whose_share_of_the_reward_above_the_least_grew_most() -> None:
    before = [rollout("honest 1", -10), rollout("hack 1", -90), rollout("wrong", -100)]
    after = [rollout("honest 1", -60), rollout("hack 1", -80), *[rollout("hack 2", -80)] * 2, rollout("hack 3", -100)]
    assert behind(before, after, first_word) == Behind("hack", (0.1, 0.6), "hack 2")
    assert behind(before, before, first_word) is None
    assert behind(before, [rollout("wrong", -100)], first_word) is None
    assert behind([], [], first_word) is None


def test_the_warning_names_the_figures_and_the_query() -> None:
    watch = Watch("ems", 1000.0)
    trained(watch, [([], GOOD), ([100, 110], GOOD), ([300, 320], BAD)])
    assert watch.divergence
    text = divergence_record(watch.divergence, Behind("SELECT ?", (0.02, 0.61), "SELECT 'Yes'"))["warning"]
    assert text == (
        "warning: since step 2, when dev was best, the reward of training rose from 105 to 310 while ems on dev fell "
        "from 0.75 to 0.25: what is paid is not what is meant, or the policy learns its questions by heart. The query "
        "behind it, which earned 2% of the reward and now earns 61%: SELECT ? (for one: SELECT 'Yes')"
    )
    assert divergence_record(watch.divergence, None)["warning"].endswith("by heart.")
    rate = replace(watch.divergence, metric="error_rate", dev=(-0.1, -0.3))
    assert "while error_rate on dev rose from 0.1 to 0.3: what" in divergence_record(rate, None)["warning"]


PLUGINS = """
import codegym


class Dumper(codegym.Policy):
    '''Answers well until step 3, then returns every name.'''

    def __post_init__(self):
        self.step = 0

    def generate(self, examples):
        dump = "SELECT  name FROM athlete -- all of them"
        return [dump if self.step > 3 else example.metadata["target"] for example in examples]

    def train(self, examples, grade, job):
        job.dev_score()
        for self.step in range(1, 9):
            batch = [example for example in examples[:4] for _ in range(2)]
            rollouts = grade(batch, self.generate(batch))
            names = ("distinct_queries", "star_rate", "parts_ratio", "empty_rate", "table_free_rate")
            means = {name: sum(each.metrics[name] for each in rollouts) / len(rollouts) for name in names}
            job.log(self.step, 8, {"reward": sum(each.reward for each in rollouts) / len(rollouts), **means})
            if self.step % 2 == 0:
                job.dev_score()


Dumper.__init__ = lambda self: self.__post_init__()


class Rows(codegym.Reward):
    '''Pays for every row.'''

    def score(self, rollout):
        return float(len(rollout.execution.rows))


@codegym.hookimpl
def codegym_policies():
    return {"dumper": Dumper}


@codegym.hookimpl
def codegym_rewards():
    return {"rows": Rows}
"""
RUN_FILE = """
plugins = ["./dumper.py"]
[dataset]
plugin = "temptabqa_sample"
athletes = 40
train_size = 94
test_size = 47
dev_size = 47
[policy]
plugin = "dumper"
[backend]
plugin = "sqlite"
[rewards.rows]
[rewards.rems]
weight = 0
[evaluation]
metric = "ems"
limit = 12
"""


@pytest.fixture
def run_of_a_cheat(cli: Cli, tmp_path: Path) -> tuple[Path, str]:
    """A finished run whose policy learns to collect reward without answering, and what it printed."""
    (tmp_path / "dumper.py").write_text(PLUGINS)
    (tmp_path / "run.toml").write_text(RUN_FILE)
    done = cli("run", tmp_path / "run.toml", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    return tmp_path / "out", done.stdout


def test_a_run_whose_policy_cheats_says_so_once_and_keeps_it(run_of_a_cheat: tuple[Path, str]) -> None:
    out, printed = run_of_a_cheat
    assert printed.count("warning: since step 2, when dev was best, the reward of training rose from ") == 1
    assert "SELECT name FROM athlete (for one: SELECT  name FROM athlete -- all of them)" in printed
    report = json.loads((out / "report.json").read_text())
    assert (report["divergence"]["since"], report["divergence"]["step"]) == (2, 6)
    assert report["divergence"]["behind"]["share"][1] == 1.0
    steps = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    last = [step for step in steps if "reward" in step][-1]
    dev_before = [step["dev_score"] for step in steps if "dev_score" in step][-2]
    assert last["distinct_queries"] == 0.5
    assert last["gap"] == pytest.approx(last["reward"] / report["watched"]["full_marks"] - dev_before)
    assert last["parts_ratio"] > 5
    first = next(json.loads(line) for line in (out / "rollouts" / "train.jsonl").open())
    assert first["metrics"]["distinct_queries"] == 0.5


def test_evaluations_of_a_split_whose_name_begins_with_train_are_no_training(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "dumper.py").write_text(PLUGINS)
    limits = '[training]\nlimit = 8\n[evaluation]\ndev = "train"\n'
    (tmp_path / "run.toml").write_text(RUN_FILE.replace("[evaluation]\n", limits))
    done = cli("run", tmp_path / "run.toml", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "SELECT name FROM athlete (for one: " in done.stdout


def test_the_page_of_a_run_shows_results_baselines_plots_and_the_warning(run_of_a_cheat: tuple[Path, str]) -> None:
    out, printed = run_of_a_cheat
    text = (out / "report.md").read_text()
    for part in ("| – best constant: ", "| – constant dump ", "![Figures of the training by step](training.png)"):
        assert part in text
    assert "the reward of training rose from" in text
    assert "strict (rems)" in text
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")
    assert "– best constant" in printed
    assert "– best constant" in (out / "model" / "README.md").read_text()


def test_an_evaluation_has_a_page_without_a_picture(cli: Cli, run_file: Path, tmp_path: Path) -> None:
    assert cli("eval", run_file, "--out", tmp_path / "out").returncode == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "\nIn percent, 95 % intervals" in text
    assert "training.png" not in text
    assert not (tmp_path / "out" / "training.png").exists()


def test_a_training_without_any_of_the_figures_has_no_picture() -> None:
    watched = {"metric": "ems", "full_marks": 10.0}
    assert picture_of_training([{"step": 1, "loss": 0.5}], watched) == b""
    assert picture_of_training([{"step": 1, "reward": 0.5}], watched).startswith(b"\x89PNG")
    assert picture_of_training(
        [{"step": 1, "reward": -5.0}, {"step": 1, "dev": {"ems": 0.5}, "dev_score": 0.5}],
        {"metric": "ems", "full_marks": -1.0},
    ).startswith(b"\x89PNG")


def test_a_page_of_questions_won_and_lost() -> None:
    split = {"after": {"n": 8, "reward": 1.0}, "paired": {"won": 6, "lost": 1, "p_value": 0.125}}
    assert "| test | 6 | 1 | 0.12 |" in page({"name": "mine", "splits": {"test": split}})
