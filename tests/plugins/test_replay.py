from __future__ import annotations

from pathlib import Path

import pytest

from codegym import ConfigError, Example
from codegym_grpo.replay import Replay, Scripted


def example(name: str) -> Example:
    return Example(id=name, prompt="?", answer="1")


def saved(folder: Path, *lines: str) -> Path:
    file = folder / "completions.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture
def two_of_a_and_one_of_b(tmp_path: Path) -> Replay:
    return Replay(
        saved(
            tmp_path,
            '{"id": "a", "completion": "SELECT 1"}',
            '{"id": "b", "completion": "SELECT 2"}',
            "",
            '{"id": "a", "completion": "SELECT 3"}',
        )
    )


def test_each_example_gets_its_saved_completion(two_of_a_and_one_of_b: Replay) -> None:
    two_of_a_and_one_of_b.prepare([example("a"), example("b")])
    assert two_of_a_and_one_of_b.generate([example("b"), example("a")]) == ["SELECT 2", "SELECT 1"]


def test_an_example_that_comes_twice_gets_its_second_sample(two_of_a_and_one_of_b: Replay) -> None:
    assert two_of_a_and_one_of_b.generate([example("a"), example("a")]) == ["SELECT 1", "SELECT 3"]


def test_every_call_starts_with_the_first_sample_again(two_of_a_and_one_of_b: Replay) -> None:
    asked = [example("a")]
    assert two_of_a_and_one_of_b.generate(asked) == two_of_a_and_one_of_b.generate(asked)


def test_missing_ids_and_missing_samples_are_told_together(two_of_a_and_one_of_b: Replay) -> None:
    asked = [example("a")] * 3 + [example(f"original/{row}") for row in range(7)]
    with pytest.raises(ConfigError) as caught:
        two_of_a_and_one_of_b.prepare(asked)
    assert "has no completion for 7 ids (original/0, original/1, original/2, original/3, original/4, ...)" in str(
        caught.value
    )
    assert "has too few samples for 1 id (a); a has 2 of 3" in str(caught.value)


def test_an_id_that_no_example_has_is_an_error(two_of_a_and_one_of_b: Replay) -> None:
    with pytest.raises(ConfigError, match=r"has 1 id \(b\) that no example of this run has"):
        two_of_a_and_one_of_b.prepare([example("a")])


def test_every_bad_line_is_named_with_its_number(tmp_path: Path) -> None:
    file = saved(
        tmp_path, '{"id": "a", "completion": "x"}', "SELECT 1", '{"id": 1, "completion": "x"}', '{"id": "b"}', "3"
    )
    with pytest.raises(ConfigError) as caught:
        Replay(file).prepare([example("a")])
    assert [problem.split(", ")[1].split(":")[0] for problem in caught.value.problems] == [
        "line 2",
        "line 3",
        "line 4",
        "line 5",
    ]
    assert [finding.level for finding in Replay(file).findings()] == ["error"] * 4


def test_a_file_that_is_missing_or_empty_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        Replay(tmp_path / "nowhere.jsonl").prepare([])
    with pytest.raises(ConfigError, match="holds no completion"):
        Replay(saved(tmp_path)).prepare([])


def test_replay_and_scripted_do_not_train(two_of_a_and_one_of_b: Replay) -> None:
    assert not two_of_a_and_one_of_b.trainable
    assert not Scripted(("x",)).trainable


def test_a_script_starts_again_at_its_end() -> None:
    policy = Scripted(("x", "y", "z"))
    assert policy.generate([example("a"), example("b")]) == ["x", "y"]
    assert policy.generate([example("a"), example("b")]) == ["z", "x"]


def test_a_script_by_id_must_have_every_id() -> None:
    policy = Scripted({"a": "x"})
    assert policy.generate([example("a"), example("a")]) == ["x", "x"]
    with pytest.raises(ConfigError, match=r"completions has none for 1 id \(b\)"):
        policy.prepare([example("a"), example("b")])
    with pytest.raises(ConfigError, match="completions is empty"):
        Scripted(()).generate([example("a")])


def test_ids_that_are_missing_and_ids_that_are_unknown_are_told_together(tmp_path: Path) -> None:
    file = saved(tmp_path, '{"id": "a", "completion": "SELECT 1"}', '{"id": "z", "completion": "SELECT 2"}')
    with pytest.raises(ConfigError) as error:
        Replay(file).prepare([example("a"), example("b")])
    assert error.value.problems == [
        f"policy replay: {file} has no completion for 1 id (b)",
        f"policy replay: {file} has 1 id (z) that no example of this run has",
    ]
