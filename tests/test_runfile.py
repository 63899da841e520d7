"""Run files layer, resolve their paths, take overrides, and say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from codegym.errors import ConfigError
from codegym.runfile import read


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)


def refusal(file: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        read(file, overrides)
    return str(raised.value)


def test_a_file_lies_over_the_one_it_extends_key_by_key(tmp_path: Path) -> None:
    write(
        tmp_path,
        base='seed = 1\n[policy]\nplugin = "grpo"\nbeta = 0.0\nsteps = 10\n',
        top='extends = "base.toml"\nseed = 2\n[policy]\nbeta = 0.04\n',
    )
    merged = read(tmp_path / "top.toml")
    assert merged.table == {"seed": 2, "policy": {"plugin": "grpo", "beta": 0.04, "steps": 10}}
    assert merged.origin("policy.beta") == str(tmp_path / "top.toml")
    assert merged.origin("policy.steps") == str(tmp_path / "base.toml")


def test_extends_is_relative_to_the_file_that_says_it(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path, base="seed = 7\n")
    write(tmp_path / "deep", middle='extends = "../base.toml"\n', top='extends = "middle.toml"\n')
    assert read(tmp_path / "deep" / "top.toml").table == {"seed": 7}


def test_naming_another_plugin_drops_the_settings_of_the_one_before(tmp_path: Path) -> None:
    write(
        tmp_path,
        base='[policy]\nplugin = "grpo"\nbeta = 0.0\n',
        top='extends = "base.toml"\n[policy]\nplugin = "replay"\nfile = "saved.jsonl"\n',
    )
    merged = read(tmp_path / "top.toml")
    assert merged.table == {"policy": {"plugin": "replay", "file": "saved.jsonl"}}
    assert merged.origin("policy.missing") == str(tmp_path / "top.toml")


def test_a_base_may_hold_settings_for_a_plugin_that_is_named_above(tmp_path: Path) -> None:
    write(tmp_path, base="[policy]\nbeta = 0.1\n", top='extends = "base.toml"\n[policy]\nplugin = "grpo"\n')
    assert read(tmp_path / "top.toml").table == {"policy": {"beta": 0.1, "plugin": "grpo"}}


def test_files_that_extend_each_other_are_refused_with_the_whole_circle(tmp_path: Path) -> None:
    write(tmp_path, one='extends = "two.toml"\n', two='extends = "one.toml"\n')
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    assert refusal(one) == f"{one}: extends itself: {one} -> {two} -> {one}"


def test_a_missing_run_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path, quickstart="")
    missing = tmp_path / "quikstart.toml"
    assert refusal(missing) == f"there is no run file {missing}; did you mean quickstart.toml?"


def test_a_missing_base_is_told_with_the_file_that_extends_it(tmp_path: Path) -> None:
    write(tmp_path, top='extends = "nothing.toml"\n')
    top = tmp_path / "top.toml"
    assert refusal(top) == f"there is no run file {tmp_path / 'nothing.toml'}, which {top} extends"


def test_what_is_no_run_file_is_told_as_what_it_is(tmp_path: Path) -> None:
    write(tmp_path, broken="seed = \n", listed='extends = ["a.toml", "b.toml"]\n')
    assert refusal(tmp_path) == f"{tmp_path} is a folder, not a run file"
    assert "broken.toml: not valid TOML: Invalid value (at line 1, column 8)" in refusal(tmp_path / "broken.toml")
    expected = "extends: expected the name of one file such as \"other.toml\", got ['a.toml', 'b.toml']"
    assert expected in refusal(tmp_path / "listed.toml")


def test_paths_that_start_with_a_dot_are_relative_to_the_file_that_says_them(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", base='[policy]\nmodel = "../model"\nhub = "org/model"\nmany = ["./a", "b"]\n')
    write(tmp_path, top='extends = "deep/base.toml"\n')
    policy = read(tmp_path / "top.toml").table["policy"]
    assert policy == {
        "model": str(tmp_path / "model"),
        "hub": "org/model",
        "many": [str(tmp_path / "deep" / "a"), "b"],
    }


def test_local_plugins_of_all_layers_are_gathered_once_each(tmp_path: Path) -> None:
    for name in ("one.py", "two.py"):
        (tmp_path / name).touch()
    write(tmp_path, base='plugins = ["one.py"]\n', top='extends = "base.toml"\nplugins = ["two.py", "./one.py"]\n')
    assert read(tmp_path / "top.toml").plugin_files == [tmp_path / "one.py", tmp_path / "two.py"]


def test_problems_with_plugins_and_overrides_do_not_hide_one_another(tmp_path: Path) -> None:
    (tmp_path / "brevity.py").touch()
    write(tmp_path, top='plugins = ["brevty.py", "brevity.py"]\n', worse='plugins = "brevity.py"\n')
    top = tmp_path / "top.toml"
    assert read(top, ["seed", "plugins=[]"]).problems == [
        f"{top}: plugins: there is no file {tmp_path / 'brevty.py'}; did you mean brevity.py?",
        "--set seed: expected table.key=value, such as policy.learning_rate=1e-5",
        "--set plugins=[]: plugins can only be set in a run file",
    ]
    expected = (
        f"{tmp_path / 'worse.toml'}: plugins: expected a list of files such as [\"my_reward.py\"], got 'brevity.py'"
    )
    assert read(tmp_path / "worse.toml").problems == [expected]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a.b=1e-5", {"a": {"b": 1e-5}}),
        ("a.b=true", {"a": {"b": True}}),
        ('a.b=["x", "y"]', {"a": {"b": ["x", "y"]}}),
        ("a.b=word", {"a": {"b": "word"}}),
        ("a.b=org/model-7b", {"a": {"b": "org/model-7b"}}),
        ("a.b=", {"a": {"b": ""}}),
        ("a.b=x=y", {"a": {"b": "x=y"}}),
        ("seed=3", {"seed": 3}),
    ],
)
def test_an_override_is_parsed_as_toml_and_a_bare_word_is_a_string(
    tmp_path: Path, override: str, expected: object
) -> None:
    write(tmp_path, top="")
    assert read(tmp_path / "top.toml", [override]).table == expected


def test_overrides_win_and_their_order_does_not_matter_to_a_new_plugin(tmp_path: Path) -> None:
    write(tmp_path, top='seed = 1\n[policy]\nplugin = "grpo"\nbeta = 0.1\n')
    for overrides in (["policy.plugin=replay", "policy.file=a.jsonl"], ["policy.file=a.jsonl", "policy.plugin=replay"]):
        merged = read(tmp_path / "top.toml", overrides)
        assert merged.table["policy"] == {"plugin": "replay", "file": "a.jsonl"}
        assert merged.origin("policy.file") == "--set"


def test_paths_of_overrides_are_relative_to_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "files").mkdir()
    write(tmp_path / "files", top="")
    monkeypatch.chdir(tmp_path)
    assert read(Path("files/top.toml"), ["policy.model=./base"]).table["policy"]["model"] == str(tmp_path / "base")


@pytest.mark.parametrize("override", ["seed", "=1", "policy.=1", ".x=1"])
def test_an_override_that_is_none_is_refused(tmp_path: Path, override: str) -> None:
    write(tmp_path, top="")
    expected = f"--set {override}: expected table.key=value, such as policy.learning_rate=1e-5"
    assert read(tmp_path / "top.toml", [override]).problems == [expected]
