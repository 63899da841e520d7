"""A run file becomes objects, or all of its problems are told at once: file, table, key, what is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from codegym.config import load
from codegym.errors import ConfigError, PluginError
from codegym.report import RunFolder

SETTINGS = """
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

import codegym


@dataclass
class Limits:
    seconds: float = 1.0


@dataclass
class Everything(codegym.Reward):
    required: str
    count: Annotated[int, Field(ge=1, le=8)] = 1
    share: float = 0.5
    flag: bool = True
    names: tuple[str, ...] = ()
    table: dict[str, int] = field(default_factory=dict)
    choice: Literal["recall", "f1"] = "f1"
    file: Path = Path("x")
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.required == "bad":
            raise codegym.ConfigError(["first", "second"])
        if self.required == "worse":
            raise ValueError("never worse")
        if self.required == "worst":
            raise KeyError("worst")

    def score(self, rollout):
        return 1.0


class Plain(codegym.Reward):
    def score(self, rollout):
        return 1.0


@dataclass
class Odd(codegym.Reward):
    anything: codegym.Policy | None = None

    def score(self, rollout):
        return 1.0


@codegym.hookimpl
def codegym_rewards():
    return {"everything": Everything, "plain": Plain, "odd": Odd}
"""


def above(run_file: Path, text: str) -> Path:
    """Return a run file that lies over the shared one, with a plugin of settings of every type."""
    run_file.with_name("settings.py").write_text(SETTINGS)
    file = run_file.with_name("top.toml")
    file.write_text(f'extends = "{run_file.name}"\nplugins = ["settings.py"]\n{text}')
    return file


def problems(run_file: Path, text: str, *overrides: str) -> list[str]:
    """Return what is wrong, without the folder in front."""
    with pytest.raises(ConfigError) as raised:
        load(above(run_file, text), overrides)
    return [problem.replace(f"{run_file.parent}/", "") for problem in raised.value.problems]


def test_a_good_run_file_becomes_objects(run_file: Path) -> None:
    run = load(above(run_file, 'seed = 3\n[rewards.ours]\nplugin = "everything"\nrequired = "yes"\nweight = 2\n'))
    assert run.name == "top"
    assert run.seed == 3
    assert type(run.backend).__name__ == "Sqlite"
    assert [(reward.label, reward.weight) for reward in run.rewards] == [("rems", 1.0), ("ours", 2.0)]
    assert run.evaluation.splits == ("test",)
    assert str(run.sources["rewards.ours"]) == f"file {run_file.parent / 'settings.py'}"


def test_lists_tables_and_strings_become_what_the_settings_are(run_file: Path) -> None:
    text = 'required = "yes"\nnames = ["a", "b"]\ntable = {a = 1}\nfile = "./data"\nshare = 1\nlimits = {seconds = 2}\n'
    [_, weighted] = load(above(run_file, f"[rewards.everything]\n{text}")).rewards
    settings = vars(weighted.reward)
    assert settings["names"] == ("a", "b")
    assert settings["table"] == {"a": 1}
    assert settings["file"] == run_file.parent / "data"
    assert settings["limits"].seconds == 2.0


def test_the_resolved_run_file_is_the_same_run(run_file: Path) -> None:
    run = load(above(run_file, '[rewards.ours]\nplugin = "everything"\nrequired = "yes"\nweight = 0.5\n'))
    again = run_file.with_name("resolved.toml")
    RunFolder(again.parent).write_toml(again.name, run.resolved)
    assert load(again).resolved == run.resolved
    assert run.resolved["rewards"]["ours"]["choice"] == "f1"  # a default, written out


def test_a_table_without_a_plugin_takes_its_label_for_one_and_may_be_switched_off(run_file: Path) -> None:
    run = load(above(run_file, "[guards.no_select_star]\n[rewards.rems]\nenabled = false\n[rewards.plain]\n"))
    assert list(run.guards) == ["no_select_star"]
    assert [reward.label for reward in run.rewards] == ["plain"]


def test_each_thread_gets_a_backend_of_its_own_with_the_same_settings(run_file: Path) -> None:
    run = load(run_file, ["backend.max_rows=7"])
    backends = [run.new_backend(), run.new_backend()]
    assert backends[0] is not backends[1]
    assert all(vars(backend)["max_rows"] == 7 for backend in backends)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[reward]\n", "top.toml: [reward]: unknown key; did you mean rewards?"),
        ("sed = 1\n", "top.toml: sed: unknown key; did you mean seed?"),
        ("seed = -1\n", "top.toml: seed: must be greater than or equal to 0, got -1"),
        ('seed = "3"\n', 'top.toml: seed: must be an integer, got "3"'),
        ('name = "a/b"\n', "top.toml: name: must match pattern '^(\\w[\\w.-]*)?$', got \"a/b\""),
        ("[evaluation]\nsplit = []\n", "top.toml: [evaluation] split: unknown setting; did you mean splits?"),
        ('[evaluation]\nsplits = "test"\n', 'top.toml: [evaluation] splits: must be a list, got "test"'),
        ("training = 3\n", "top.toml: training: must be a table, got 3"),
        ("[execution]\nlanes = 300\n", "top.toml: [execution] lanes: must be less than or equal to 256, got 300"),
        (
            "[backend]\nmax_row = 1\n",
            'top.toml: [backend] max_row: unknown setting of backend "sqlite"; did you mean max_rows?',
        ),
        ("[backend]\nmax_rows = 0\n", "top.toml: [backend] max_rows: must be greater than or equal to 1, got 0"),
        (
            "[backend]\nmax_rows = 3\nseed = 1\n",
            'top.toml: [backend] seed: unknown setting of backend "sqlite"; '
            "seed stands at the top of the file, before every [table]",
        ),
        (
            '[backend]\nplugin = "sqlit"\n',
            'top.toml: [backend] plugin: there is no backend "sqlit"; did you mean sqlite?',
        ),
        (
            "[backend]\nplugin = 3\n",
            "top.toml: [backend] plugin: must be the name of a backend (duckdb, mariadb, postgres, sqlite), got 3",
        ),
        (
            'backend = "sqlite"\n',
            "top.toml: backend: must be a table: [backend] with plugin = "
            '"duckdb" or "mariadb" or "postgres" or "sqlite", got "sqlite"',
        ),
        ("[rewards.remz]\n", 'top.toml: [rewards] remz: there is no reward "remz"; did you mean rems?'),
        (
            '[rewards.ours]\nplugin = "remz"\n',
            'top.toml: [rewards.ours] plugin: there is no reward "remz"; did you mean rems?',
        ),
        ("[rewards]\nplain = 2\n", "top.toml: [rewards] plain: must be a table such as [rewards.everything], got 2"),
        ("rewards = 2\n", "top.toml: rewards: must be tables such as [rewards.everything], got 2"),
        ('[rewards."a.b"]\n', 'top.toml: [rewards.a] b: a label consists of letters, digits, _ and -, got "a.b"'),
        (
            "[rewards.rems]\nenabled = false\n",
            "base.toml: [rewards]: missing: name at least one, such as [rewards.everything]",
        ),
        ("[rewards.plain]\nweight = nan\n", "top.toml: [rewards.plain] weight: must be a finite number, got NaN"),
        ("[rewards.plain]\nweight = true\n", "top.toml: [rewards.plain] weight: must be a finite number, got true"),
        ('[rewards.plain]\nenabled = "no"\n', 'top.toml: [rewards.plain] enabled: must be true or false, got "no"'),
        (
            "[rewards.plain]\nlimit = 1\n",
            'top.toml: [rewards.plain] limit: unknown setting of reward "plain", which has none',
        ),
        (
            "[guards.no_select_star]\nweight = 1\n",
            'top.toml: [guards.no_select_star] weight: unknown setting of guard "no_select_star"; '
            "known: dialect, max_length",
        ),
        (
            "[rewards.everything]\n",
            'top.toml: [rewards.everything] required: missing: a setting of reward "everything" that has no default',
        ),
    ],
)
def test_one_mistake_is_told_with_its_place_and_what_is_right(run_file: Path, text: str, expected: str) -> None:
    assert problems(run_file, text) == [expected]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("count = 9", "count: must be less than or equal to 8, got 9"),
        ('count = "2"', 'count: must be an integer, got "2"'),
        ("count = 1.5", "count: must be an integer, got 1.5"),
        ('share = "half"', 'share: must be a number, got "half"'),
        ("flag = 1", "flag: must be true or false, got 1"),
        ("table = 1", "table: must be a table, got 1"),
        ('choice = "f2"', "choice: must be 'recall' or 'f1', got \"f2\""),
    ],
)
def test_a_setting_of_the_wrong_type_or_range_is_told_what_it_must_be(
    run_file: Path, setting: str, expected: str
) -> None:
    found = problems(run_file, f'[rewards.everything]\nrequired = "yes"\n{setting}\n')
    assert found == [f"top.toml: [rewards.everything] {expected}"]


def test_a_setting_within_a_setting_is_told_with_its_path(run_file: Path) -> None:
    text = '[rewards.everything]\nrequired = "yes"\nnames = ["a", 2]\nlimits = {secnds = 1}\n'
    assert problems(run_file, text) == [
        "top.toml: [rewards.everything.names] 1: must be a string, got 2",
        'top.toml: [rewards.everything.limits] secnds: unknown setting of reward "everything"',
    ]


def test_a_table_that_is_missing_is_told_with_what_is_installed(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").touch()
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "empty.toml")
    assert [problem.removeprefix(f"{tmp_path}/") for problem in raised.value.problems] == [
        "empty.toml: [dataset] plugin: missing: name the dataset; "
        "installed: temptabqa, temptabqa_pairs, temptabqa_sample",
        "empty.toml: [policy] plugin: missing: name the policy; "
        "installed: endpoint, grpo, replay, scripted, sft, supervised, transformers",
        "empty.toml: [backend] plugin: missing: name the backend; installed: duckdb, mariadb, postgres, sqlite",
        "empty.toml: rewards: missing: name at least one, such as [rewards.exact_match]",
    ]


def test_what_a_plugin_finds_wrong_as_it_is_made_is_told_with_the_table(run_file: Path) -> None:
    assert problems(run_file, '[rewards.everything]\nrequired = "bad"\n') == [
        "top.toml: [rewards] everything: first",
        "top.toml: [rewards] everything: second",
    ]
    assert problems(run_file, '[rewards.everything]\nrequired = "worse"\n') == [
        "top.toml: [rewards] everything: never worse"
    ]


def test_a_plugin_that_raises_something_else_as_it_is_made_is_blamed(run_file: Path) -> None:
    with pytest.raises(PluginError) as raised:
        load(above(run_file, '[rewards.everything]\nrequired = "worst"\n'))
    place = f"{run_file.with_name('settings.py')}:{SETTINGS[: SETTINGS.index('KeyError')].count(chr(10)) + 1}"
    assert str(raised.value) == f"reward \"everything\" raised KeyError: 'worst' ({place})"


def test_a_setting_of_a_type_that_no_run_file_can_hold_is_the_plugins_mistake(run_file: Path) -> None:
    with pytest.raises(PluginError, match=r'reward "odd" raised PydanticSchemaGenerationError'):
        load(above(run_file, "[rewards.odd]\n"))


def test_all_problems_are_told_at_once_each_with_where_it_came_from(run_file: Path) -> None:
    run_file.write_text(run_file.read_text() + "wieght = 2\n")
    found = problems(run_file, "seed = 1.5\nplugins_ = []\n[backend]\nmax_rows = 0\n", "policy.plugin=scriptd", "x")
    assert found == [
        "--set x: expected table.key=value, such as policy.learning_rate=1e-5",
        "top.toml: plugins_: unknown key; did you mean plugins?",
        "top.toml: seed: must be an integer, got 1.5",
        '--set: [policy] plugin: there is no policy "scriptd"; did you mean scripted?',
        "top.toml: [backend] max_rows: must be greater than or equal to 1, got 0",
        'base.toml: [rewards.rems] wieght: unknown setting of reward "rems"; '
        "known: comparator, error, exact, executes, overlap, partial",
    ]


@pytest.mark.parametrize(("processes", "lanes"), [("", 4), ("0", 4), ("1", 4), ("2", 4), ("3", 2), ("100", 1)])
def test_processes_of_one_launcher_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, processes: str, lanes: int
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    tables = {"dataset": "temptabqa_sample", "policy": "replay", "backend": "sqlite", "rewards.rems": "rems"}
    text = "".join(f'[{table}]\nplugin = "{plugin}"\n' for table, plugin in tables.items())
    (tmp_path / "run.toml").write_text(text.replace('"replay"', '"replay"\nfile = "r.jsonl"'))
    assert load(tmp_path / "run.toml").lanes == lanes
