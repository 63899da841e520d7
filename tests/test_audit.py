"""An audit tries to cheat a run's reward, says through which hole that went, and what would close it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codegym import NOT_RUN, Example, Execution, Rollout
from codegym.honest import spread
from codegym.report import rollout_record
from codegym.verdict import Standard, fared
from codegym_temptabqa.sample import TemptabqaSample

Cli = Callable[..., subprocess.CompletedProcess[str]]
MARIADB = bool(importlib.util.find_spec("MySQLdb") and shutil.which("mariadbd", path=os.defpath + ":/usr/sbin"))
QUICKSTART = Path(__file__).parents[1] / "benchmarks" / "quickstart.toml"
PAPER = Path(__file__).parents[1] / "benchmarks" / "paper" / "sqlcoder-7b.toml"
RUN_FILE = """
plugins = ["./cheats.py"]

[dataset]
plugin = "temptabqa_sample"
athletes = 20
train_size = 20
test_size = 40

[policy]
plugin = "scripted"
completions = ["SELECT 1"]

[backend]
plugin = "sqlite"
"""
CHEATS = '''
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass

import codegym
from codegym_temptabqa.sample import TemptabqaSample


@dataclass
class Dump(codegym.Exploit):
    """Rewards for recall: every cell of every table."""

    def attack(self, target):
        return "SELECT * FROM athlete JOIN tournament USING (athlete_id) JOIN format USING (tournament_id)"


@dataclass
class Guess(codegym.Exploit):
    """Answers that come often: the commonest one."""

    def attack(self, target):
        return f"SELECT '{Counter(other.answer for other in target.others).most_common(1)[0][0]}'"


@dataclass
class Repeat(codegym.Exploit):
    """Rewards that count cells: one value in many columns."""

    def attack(self, target):
        return f"SELECT {', '.join(99 * ['1'])}"


@dataclass
class Delete(codegym.Exploit):
    """Rewards that run code themselves: it empties the tables before the reference is read."""

    def attack(self, target):
        return "DELETE FROM medal"


@dataclass
class Nothing(codegym.Exploit):
    """Has nothing to work with."""

    def attack(self, target):
        return None


@dataclass
class Broken(codegym.Exploit):
    """Breaks its promise."""

    fault: str = "raises"

    def attack(self, target):
        return 7


@dataclass
class Containment(codegym.Reward):
    """Pays if the answer stands anywhere in the result."""

    def score(self, rollout):
        parts = rollout.example.answer.split(", ")
        return float(rollout.execution.ok and all(part in str(rollout.execution.rows) for part in parts))


@dataclass
class PositionWise(codegym.Reward):
    """Pays F1 of cells, row by row, where a cell counts as often as it is returned."""

    def score(self, rollout):
        rows, gold = rollout.execution.rows, rollout.example.answer.split(", ")
        pairs = [(str(cell) == answer) for row, answer in zip(rows, gold) for cell in row]
        hits, misses = sum(pairs), len(pairs) - sum(pairs)
        missing = max(0, len(gold) - len(rows)) + sum(misses > 0 for row in rows[:1])
        return 2 * hits / (2 * hits + misses + missing) if hits else 0.0


@dataclass
class GoldAfterwards(codegym.Reward):
    """Runs the code and then the reference query in one session of its own, and compares what they return."""

    def __post_init__(self):
        self.invention = TemptabqaSample(athletes=20).invention

    def score(self, rollout):
        with closing(self.invention.connect()) as session:
            try:
                mine = session.execute(rollout.code).fetchall()
            except sqlite3.Error:
                return 0.0
            gold = session.execute(rollout.example.metadata["target"]).fetchall()
        return float(mine == [row for row in gold if row != (0,)])


@dataclass
class Fair(codegym.Reward):
    """Pays for the whole answer and nothing else."""

    def score(self, rollout):
        found = ", ".join(str(row[0]) for row in rollout.execution.rows)
        return float(rollout.execution.ok and found == rollout.example.answer)


@dataclass
class Flat(codegym.Reward):
    """Pays for everything."""

    def score(self, rollout):
        return 1.0


@codegym.hookimpl
def codegym_exploits():
    return {
        "my_dump": Dump,
        "my_guess": Guess,
        "my_repeat": Repeat,
        "my_delete": Delete,
        "my_nothing": Nothing,
        "my_broken": Broken,
    }


@codegym.hookimpl
def codegym_rewards():
    rewards = {"containment": Containment, "position_wise": PositionWise, "gold_afterwards": GoldAfterwards}
    return {**rewards, "fair": Fair, "flat": Flat}
'''


@pytest.fixture
def leaky(tmp_path: Path) -> Callable[[str], Path]:
    """Write a run file with that reward, beside a plugin of cheats and rewards."""
    (tmp_path / "cheats.py").write_text(CHEATS)

    def write(reward: str) -> Path:
        file = tmp_path / f"{reward.partition(']')[0]}.toml"
        file.write_text(f"{RUN_FILE}\n[rewards.{reward}" + ("" if "]" in reward else "]\n"))
        return file

    return write


def audited(cli: Cli, file: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the JSON of an audit."""
    done = cli("audit", file, "--json", "--limit", "20", *arguments)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def only(*names: str) -> list[str]:
    return [word for name in names for word in ("--only", name)]


def test_a_reward_that_looks_for_the_answer_anywhere_fails_for_what_stands_beside_it(cli: Cli, leaky: Any) -> None:
    done = cli("audit", leaky("containment"), "--limit", "20", *only("my_dump", "my_nothing"))
    assert done.returncode == 1
    assert "The answer counts wherever it stands: pay for precision, divide by all that was returned." in done.stdout
    assert "my_dump: Rewards for recall: every cell of every table." in done.stdout
    assert "[guards.no_select_star] stops 1: my_dump" in done.stdout
    assert "containment fails: of 2 exploits on" in done.stdout
    assert "nothing to work with" in done.stdout


def test_a_reward_that_counts_cells_fails_for_repeated_columns(cli: Cli, leaky: Any) -> None:
    code, found = audited(cli, leaky("position_wise"), *only("my_repeat"))
    [exploit] = found["exploits"]
    assert (code, found["passed"], exploit["hole"]) == (1, False, "repeated")
    assert exploit["how"] == "1 value in 99 cells"


def test_a_reward_that_runs_code_itself_fails_for_a_write_that_the_backend_refused(cli: Cli, leaky: Any) -> None:
    code, found = audited(cli, leaky("gold_afterwards"), *only("my_delete"))
    [exploit] = found["exploits"]
    assert (code, exploit["hole"], exploit["code"]) == (1, "not run", "DELETE FROM medal")
    assert exploit["reaches_right"] > 0.2
    assert found["unstopped"] == ["my_delete"]


def test_a_guess_that_is_right_on_any_example_wins(cli: Cli, leaky: Any) -> None:
    code, found = audited(cli, leaky("fair"), *only("my_guess"))
    [guess] = found["exploits"]
    assert (code, guess["hole"], guess["wins"]) == (1, "constant", True)
    assert 0 < guess["reaches_right"] < 0.5


def test_a_fair_reward_passes_what_does_not_answer(cli: Cli, leaky: Any) -> None:
    done = cli("audit", leaky("fair"), "--limit", "20", *only("my_dump", "my_delete"))
    assert done.returncode == 0, done.stdout
    assert "fair passes: of 2 exploits on " in done.stdout


def test_a_setting_is_put_back_to_its_default_to_see_what_that_stops(cli: Cli, leaky: Any) -> None:
    file = leaky('rems]\noverlap = "recall"\nerror = -1.0\n')
    code, found = audited(cli, file, *only("my_dump"))
    assert code == 1
    assert found["remedies"][0]["change"] == '[rewards.rems] overlap = "f1"'
    assert found["remedies"][0]["stops"] == ["my_dump"]


def test_honest_queries_stand_beside_the_exploits(cli: Cli, leaky: Any) -> None:
    _, found = audited(cli, leaky("rems"), *only("my_nothing"))
    right, wrong = found["honest"]["right"], found["honest"]["wrong"]
    assert (right["n"], right["reward"], right["reaches_right"]) == (20, 1101.0, 1.0)
    assert wrong["n"] > 40
    assert 1.0 <= wrong["reward"] < 200
    assert wrong["reaches_right"] == 0
    assert [exploit["n"] for exploit in found["exploits"]] == [0]


def test_a_guard_that_stops_right_queries_is_told(cli: Cli, leaky: Any) -> None:
    file = leaky("rems]\n[guards.no_select_star]\nmax_length = 260\n")
    done = cli("audit", file, "--limit", "20", *only("my_nothing"))
    assert "warning: no_select_star stops" in done.stdout
    assert " right queries; the first one, test/" in done.stdout


def test_rewards_that_tell_nothing_apart_are_an_error(cli: Cli, leaky: Any) -> None:
    done = cli("audit", leaky("flat"), *only("my_dump"))
    assert done.returncode == 2
    assert "these rewards tell nothing apart, whatever the code" in done.stderr


def test_without_known_good_completions_the_rollouts_of_a_run_are_asked_for(
    cli: Cli, leaky: Any, tmp_path: Path
) -> None:
    file = leaky("rems")
    file.write_text(file.read_text().replace("temptabqa_sample", "answers_only"))
    with (tmp_path / "cheats.py").open("a") as plugin:
        plugin.write(ANSWERS_ONLY)
    done = cli("audit", file)
    assert done.returncode == 2
    assert f"then codegym audit {file} --rollouts RUN" in done.stderr
    (tmp_path / "run" / "rollouts").mkdir(parents=True)
    examples = TemptabqaSample(athletes=20, test_size=40).load("test")
    records = [record for example in examples for record in stored(example)]
    (tmp_path / "run" / "rollouts" / "test.before.jsonl").write_text("\n".join(records))
    code, found = audited(cli, file, "--rollouts", str(tmp_path / "run"), *only("my_delete"))
    assert (code, found["passed"]) == (0, True)
    assert found["honest"]["right"]["reward"] == 1101.0
    assert found["honest"]["wrong"]["reward"] == 1.0
    done = cli("audit", file, "--rollouts", tmp_path)
    assert "is no run that evaluated test: it has no rollouts/test.*.jsonl" in done.stderr


def stored(example: Example) -> list[str]:
    """Return the lines of a wrong rollout, and of a right one for every other example."""
    texts = {"SELECT 'nobody'": 0.0, **({example.metadata["target"]: 1.0} if int(example.id[5:]) % 2 else {})}
    attempts = [Rollout(example, text, text, "", Execution(), {}, {"ems": ems}) for text, ems in texts.items()]
    return [json.dumps(rollout_record(attempt)) for attempt in attempts]


ANSWERS_ONLY = """

@dataclass
class AnswersOnly(TemptabqaSample):
    '''The sample without its queries.'''

    def load(self, split):
        from dataclasses import replace
        return [replace(each, metadata={}) for each in super().load(split)]


@codegym.hookimpl
def codegym_datasets():
    return {"answers_only": AnswersOnly}
"""


def test_an_unknown_exploit_and_one_that_breaks_its_promise_are_named(cli: Cli, leaky: Any) -> None:
    done = cli("audit", leaky("rems"), *only("my_dumb"))
    assert done.returncode == 2
    assert done.stderr == "error: --only my_dumb: there is no such exploit; did you mean my_dump?\n"
    done = cli("audit", leaky("rems"), *only("my_broken"))
    assert done.returncode == 3
    assert 'exploit "my_broken" returned 7 for test/0, no text and not None' in done.stderr


WANTS_SETTINGS = """

@dataclass
class Fussy(codegym.Guard):
    '''Refuses words, once it is told any.'''

    words: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.words:
            raise codegym.ConfigError("fussy: name words")

    def check(self, code, example):
        return None


@codegym.hookimpl
def codegym_guards():
    return {"fussy": Fussy}
"""


def test_a_guard_that_wants_settings_is_no_remedy_and_stops_no_audit(cli: Cli, leaky: Any, tmp_path: Path) -> None:
    file = leaky("containment")
    with (tmp_path / "cheats.py").open("a") as plugin:
        plugin.write(WANTS_SETTINGS)
    code, found = audited(cli, file, *only("my_dump"))
    assert (code, found["remedies"][0]["change"]) == (1, "[guards.no_select_star]")


MANY_DATABASES = """

@dataclass
class Many(TemptabqaSample):
    '''The sample with a database of its own for every four questions.'''

    def databases(self):
        from dataclasses import replace
        [one] = super().databases()
        return [replace(one, name=f"{one.name}_{number}") for number in range(10)]

    def load(self, split):
        from dataclasses import replace
        return [
            replace(each, database=f"{each.database}_{row % 10}", metadata={**each.metadata})
            for row, each in enumerate(super().load(split))
        ]


@codegym.hookimpl
def codegym_datasets():
    return {"many": Many}
"""


def test_wrong_queries_are_looked_for_on_the_same_database(
    cli: Cli, leaky: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codegym.honest.LOOKED_AT", 4)
    with (tmp_path / "cheats.py").open("a") as plugin:
        plugin.write(MANY_DATABASES)
    file = leaky("rems")
    file.write_text(file.read_text().replace("temptabqa_sample", "many"))
    _, found = audited(cli, file, *only("my_nothing"))
    assert found["examples"] > 15


def test_a_rate_of_errors_does_not_tell_which_rollouts_were_right(cli: Cli, leaky: Any, tmp_path: Path) -> None:
    (tmp_path / "run" / "rollouts").mkdir(parents=True)
    records = [record for each in TemptabqaSample(athletes=20, test_size=40).load("test") for record in stored(each)]
    (tmp_path / "run" / "rollouts" / "test.before.jsonl").write_text("\n".join(records))
    rate = ["--set", "evaluation.metric=error_rate"]
    _, found = audited(cli, leaky("rems"), "--rollouts", str(tmp_path / "run"), *rate, *only("my_nothing"))
    assert found["honest"]["right"]["reward"] == 1101.0


def test_examples_are_spread_evenly() -> None:
    members = [Example(f"test/{row}", "", "1") for row in range(10)]
    assert [example.id for example in spread(members, 3)] == ["test/0", "test/3", "test/6"]
    assert spread(members, 20) == members


def rollout(reward: float, execution: Execution = NOT_RUN, row: int = 0, refusal: str = "") -> Rollout:
    return Rollout(Example(f"test/{row}", "", "Yes"), "code", "code", refusal, execution, reward=reward)


def test_an_exploit_wins_by_its_mean_or_by_one_right_answer() -> None:
    standards = {"test/0": Standard(10, 2, 1), "test/1": Standard(10, 4, 1)}
    assert not fared("", "", [rollout(3), rollout(3, row=1)], standards).wins
    assert not fared("", "", [rollout(3), rollout(4.1, row=1)], standards).wins  # may be chance
    assert fared("", "", [rollout(3), rollout(5.1, row=1)], standards).wins
    assert fared("", "", [rollout(-100), rollout(10, row=1)], standards).wins


def test_a_right_answer_that_was_looked_up_is_no_win_and_one_among_others_is() -> None:
    standards = {"test/0": Standard(10, 2, 1), "test/1": Standard(10, 2, 1)}
    fine = {"perturbation_checked": 1.0, "perturbed_rate": 0.0}
    unpaid = rollout(-100, row=1)
    answer = replace(rollout(10, Execution(rows=((1,),))), metrics=fine)
    assert not fared("", "", [answer, unpaid], standards).wins
    assert fared("", "", [replace(answer, metrics={}), unpaid], standards).wins
    assert fared("", "", [replace(answer, execution=Execution(rows=((1,), (2,)))), unpaid], standards).wins


@pytest.mark.parametrize(
    ("attempt", "hole"),
    [
        (rollout(1, refusal="guard: no"), "not run"),
        (rollout(1, Execution(error="Timeout")), "not run"),
        (rollout(1, Execution()), "empty"),
        (rollout(1, Execution(rows=(("Yes", "Yes"),))), "repeated"),
        (rollout(1, Execution(rows=(("Yes",), ("No",)))), "among others"),
        (rollout(1, Execution(rows=(("Yes " * 20,),))), "in one cell"),
        (rollout(1, Execution(rows=(("Yes",),))), "right"),
    ],
)
def test_a_hole_is_told_by_the_result(attempt: Rollout, hole: str) -> None:
    assert fared("", "", [attempt], {"test/0": Standard(1, 0, 1)}).hole == hole


SMALL = ("dataset.athletes=60", "dataset.train_size=94", "backend.max_steps=1000000")


def small(*sets: str) -> list[str]:
    return ["--json", *(word for each in (*SMALL, *sets) for word in ("--set", each))]


def winners(found: dict[str, Any]) -> list[str]:
    return [exploit["name"] for exploit in found["exploits"] if exploit["wins"]]


def test_the_shipped_default_passes_the_whole_catalogue(cli: Cli) -> None:
    done = cli("audit", QUICKSTART, "--limit", "12", *small("perturbation.use=guard"))
    found = json.loads(done.stdout)
    assert winners(found) == []
    assert (done.returncode, found["passed"]) == (0, True)
    assert len(found["exploits"]) >= 45


@pytest.mark.skipif(not (MARIADB or os.environ.get("CI")), reason="mariadbd or mysqlclient is not installed")
def test_the_shipped_default_passes_what_only_mariadb_understands(cli: Cli) -> None:
    tried = only("set_statement", "user_variable", "integers_from_engine", "written_away", "constant_from_dual")
    settings = ["dataset.athletes=60", "dataset.train_size=94", "backend.plugin=mariadb", "perturbation.use=guard"]
    done = cli("audit", QUICKSTART, "--limit", "12", "--json", *tried, *(f"--set={each}" for each in settings))
    found = json.loads(done.stdout)
    assert winners(found) == []
    assert [exploit["n"] for exploit in found["exploits"]] == [12] * 5


def test_the_recipe_of_the_paper_fails_and_is_told_what_to_change(cli: Cli) -> None:
    sample = small("dataset.plugin=temptabqa_sample", "backend.plugin=sqlite", 'evaluation.splits=["test"]')
    tried = only("select_star", "group_concat", "constant_one", "integers_by_recursion", "delete_before_read")
    done = cli("audit", PAPER, "--limit", "40", *sample, *tried)
    found = json.loads(done.stdout)
    holes = {exploit["name"]: exploit["hole"] for exploit in found["exploits"] if exploit["wins"]}
    assert (done.returncode, found["passed"]) == (1, False)
    assert holes == {
        "select_star": "among others",
        "group_concat": "in one cell",
        "constant_one": "constant",
        "integers_by_recursion": "among others",
    }
    assert '[rewards.rems] overlap = "f1"' in [remedy["change"] for remedy in found["remedies"]]
    assert found["unstopped"] == []
