"""Every way in which a plugin can be wrong is told with its source, the broken promise and what to type."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from codegym import Backend, Guard, PluginError, Policy, Reward
from codegym.errors import ConfigError
from codegym.plugins import Plugins, blaming, nearest

Install = Callable[[str, str], None]

REWARD = """
from dataclasses import dataclass
import codegym

@dataclass
class Constant(codegym.Reward):
    value: float = 1.0

    def score(self, rollout):
        return self.value
"""
OFFER = """
@codegym.hookimpl
def codegym_rewards():
    return {"constant": Constant}
"""


def complaint(tmp_path: Path, code: str) -> str:
    """Return what is said of a local plugin file with this code, without the place in front."""
    file = tmp_path / "local.py"
    file.write_text(code)
    with pytest.raises(PluginError) as raised:
        Plugins([file])
    place, _, text = str(raised.value).partition(".py: ")
    assert place == f"file {file.with_suffix('')}"
    return text


def test_shipped_plugins_are_found_through_their_entry_points() -> None:
    plugin_class, source = Plugins().find(Backend, "sqlite")
    assert plugin_class.__name__ == "Sqlite"
    assert str(source) == f"codegym {version('codegym')} (sqlite = codegym_sqlite)"


def test_a_local_file_offers_what_an_installed_plugin_can(tmp_path: Path) -> None:
    file = tmp_path / "local.py"
    file.write_text(REWARD + OFFER)
    plugin_class, source = Plugins([file]).find(Reward, "constant")
    assert plugin_class.__name__ == "Constant"
    assert str(source) == f"file {file}"


def test_two_local_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    files = [tmp_path / folder / "reward.py" for folder in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        name = file.parent.name
        file.write_text((REWARD + OFFER).replace('"constant"', f'"{name}"').replace("Constant", name.title()))
    plugins = Plugins(files)
    modules = {plugins.find(Reward, name)[0].__module__ for name in ("one", "two")}
    assert len(modules) == 2


def test_a_contested_name_is_an_error_when_used_and_names_both(install: Install) -> None:
    install("first", REWARD + OFFER)
    install("second", REWARD + OFFER)
    plugins = Plugins()
    assert plugins.failures == []
    with pytest.raises(PluginError) as raised:
        plugins.find(Reward, "constant")
    text = str(raised.value)
    assert text.startswith('reward "constant" is offered by ')
    assert "first 1.0 (first = first_module)" in text
    assert "second 1.0 (second = second_module)" in text
    assert text.endswith(": uninstall or rename one of them")


def test_a_broken_plugin_is_remembered_and_named_where_its_class_is_missed(install: Install) -> None:
    install("broken", "import codegym\n\nraise RuntimeError('no licence')\n")
    plugins = Plugins()
    [failure] = plugins.failures
    assert str(failure.source) == "broken 1.0 (broken = broken_module)"
    assert re.fullmatch(r"its import raised RuntimeError: no licence \(.*/broken_module.py:3\)", failure.reason)
    with pytest.raises(ConfigError) as raised:
        plugins.find(Reward, "licensed")
    assert 'there is no reward "licensed"' in str(raised.value)
    assert f"\n    broken 1.0 (broken = broken_module) failed to load: {failure.reason}" in str(raised.value)


def test_a_broken_plugin_does_not_disturb_the_others(install: Install) -> None:
    install("broken", "import codegym\n\n@codegym.hookimpl\ndef codegym_rewards(settings):\n    return {}\n")
    install("whole", REWARD + OFFER)
    plugins = Plugins()
    assert [str(failure.source) for failure in plugins.failures] == ["broken 1.0 (broken = broken_module)"]
    assert "Argument(s) {'settings'} are declared in the hookimpl but can not be found" in plugins.failures[0].reason
    assert plugins.find(Reward, "constant")


def test_a_plugin_that_exits_when_imported_does_not_end_codegym(install: Install) -> None:
    install("exiting", "raise SystemExit(1)\n")
    assert "its import raised SystemExit: 1" in Plugins().failures[0].reason


def test_a_second_copy_of_a_distribution_is_not_a_second_plugin(install: Install, tmp_path: Path) -> None:
    install("copied", REWARD + OFFER)
    older = tmp_path / "site" / "copied-0.9.dist-info"
    older.mkdir()
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: copied\nVersion: 0.9\n")
    (older / "entry_points.txt").write_text("[codegym]\ncopied = copied_module\nold = removed_module\n")
    plugins = Plugins()
    assert plugins.find(Reward, "constant")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            REWARD + OFFER.replace("codegym_rewards", "codegym_reward"),
            "codegym_reward is no hook of codegym; did you mean codegym_rewards?",
        ),
        (
            REWARD + OFFER.replace("@codegym.hookimpl\n", ""),
            "codegym_rewards lacks its marker: put @codegym.hookimpl above it",
        ),
        (
            REWARD + OFFER.replace("codegym_rewards", "codegym_guards"),
            'codegym_guards offers "constant", but Constant is no guard; '
            "it is a reward: return it from codegym_rewards",
        ),
        (
            (REWARD + OFFER).replace("(codegym.Reward)", ""),
            'codegym_rewards offers "constant", but Constant is no reward; derive it from codegym.Reward',
        ),
        (
            (REWARD + OFFER).replace("def score", "def skore"),
            'reward "constant" (Constant) does not define score',
        ),
        (
            (REWARD + OFFER).replace("@dataclass\n", ""),
            'reward "constant" (Constant) is not a dataclass: put @dataclass above it',
        ),
        (
            (REWARD + OFFER).replace("value: float", "weight: float"),
            'reward "constant" (Constant) has settings whose names codegym uses itself: weight; rename them',
        ),
        (
            (REWARD + OFFER).replace("value: float", "metrics: float"),
            'reward "constant" (Constant) has settings whose names codegym uses itself: metrics; rename them',
        ),
        (
            (REWARD + OFFER).replace('{"constant": Constant}', "[Constant]"),
            "codegym_rewards must return a dict of names and classes, not list",
        ),
        (
            (REWARD + OFFER).replace('{"constant": Constant}', '{"constant": Constant(2.0)}'),
            'codegym_rewards must return classes, but "constant" is Constant(value=2.0)',
        ),
        (
            (REWARD + OFFER).replace('"constant"', '"my constant"'),
            "codegym_rewards offers 'my constant': a name consists of letters, digits, _ and -",
        ),
        (
            REWARD,
            "offers nothing: it needs a function codegym_datasets or codegym_policies or codegym_guards or "
            "codegym_backends or codegym_rewards or codegym_exploits marked with @codegym.hookimpl",
        ),
    ],
)
def test_a_plugin_that_breaks_a_promise_is_told_which(tmp_path: Path, code: str, expected: str) -> None:
    assert complaint(tmp_path, code) == expected


def test_a_class_variable_is_no_setting_and_needs_no_dataclass(tmp_path: Path) -> None:
    code = (REWARD + OFFER).replace("@dataclass\n", "").replace("value: float = 1.0", "value: 'ClassVar[float]' = 1.0")
    (tmp_path / "local.py").write_text(code)
    assert Plugins([tmp_path / "local.py"]).find(Reward, "constant")


def test_a_syntax_error_is_told_with_its_line(tmp_path: Path) -> None:
    assert (
        complaint(tmp_path, "import codegym\nclass\n")
        == "its import raised SyntaxError: invalid syntax (local.py, line 2)"
    )


def test_a_hook_that_raises_is_told_with_its_line(tmp_path: Path) -> None:
    code = "import codegym\n\n@codegym.hookimpl\ndef codegym_rewards():\n    return {}['missing']\n"
    text = complaint(tmp_path, code)
    assert text == f"codegym_rewards raised KeyError: 'missing' ({tmp_path / 'local.py'}:5)"


def test_a_local_plugin_is_a_python_file(tmp_path: Path) -> None:
    (tmp_path / "reward.txt").write_text(REWARD + OFFER)
    with pytest.raises(PluginError, match=r"reward.txt: a plugin file is a Python file, its name ends in .py"):
        Plugins([tmp_path / "reward.txt"])


@pytest.mark.parametrize(
    ("role", "name", "expected"),
    [
        (Reward, "remz", 'there is no reward "remz"; did you mean rems?'),
        (Reward, "REMS", 'there is no reward "REMS"; did you mean rems?'),
        (Reward, "no_select_star", 'there is no reward "no_select_star"; no_select_star is a guard'),
        (Guard, "judge", 'there is no guard "judge"; known: allowed_sql, grounded, no_select_star'),
        (Policy, "sqlite", 'there is no policy "sqlite"; sqlite is a backend'),
    ],
)
def test_an_unknown_name_leads_to_the_right_one(role: type[Reward], name: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Plugins().find(role, name)
    assert str(raised.value).splitlines()[0] == expected


def test_nearest_lists_what_there_is_when_nothing_is_near() -> None:
    assert nearest("tset", ["test", "train"]) == "; did you mean test?"
    assert nearest("zzz", ["test", "dev"]) == "; known: dev, test"
    assert nearest("zzz", []) == ""


def test_blaming_points_at_the_plugins_own_line_not_at_a_library_below_it() -> None:
    import json

    with pytest.raises(PluginError) as raised, blaming('reward "parse"'):
        json.loads("{")
    assert str(raised.value).startswith('reward "parse" raised JSONDecodeError: ')
    assert re.search(r"\(.*test_plugins.py:\d+\)$", str(raised.value))


def test_blaming_lets_codegyms_own_errors_and_ctrl_c_pass() -> None:
    with pytest.raises(ConfigError, match="mine"), blaming("plugin"):
        raise ConfigError("mine")
    with pytest.raises(KeyboardInterrupt), blaming("plugin"):
        raise KeyboardInterrupt
