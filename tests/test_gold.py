"""Reference answers in doubt are found and told why, and can be left out."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from codegym import Database
from codegym.config import load
from codegym.gold import Gold, check_gold, parts_of
from codegym.report import Display
from codegym.run import load_examples
from codegym.vocabulary import Vocabulary

Cli = Callable[..., subprocess.CompletedProcess[str]]
PLUGIN = """
import random
from dataclasses import dataclass

import codegym

CITIES = codegym.Database("cities", "CREATE TABLE city (name VARCHAR(40), people INTEGER)", {
    "city": [("Aar", 3), ("Bex  Bains", 5), ("Cham, Zug", 7), ("Gold", 9)],
})
ROWS = [
    ("Which city has three people?", "Aar", "SELECT name FROM city WHERE people = 3"),
    ("Which city has three people?", "Bex Bains", ""),
    ("Nothing?", " , ", ""),
    ("Wrong?", "Aar", "SELECT name FROM city WHERE people = 5"),
    ("Broken?", "Aar", "SELECT nme FROM city"),
    ("Refused?", "Aar", "SELECT * FROM city"),
    ("Now?", "2", "SELECT COUNT(*) - 2 + 0 * unixepoch('now') FROM city"),
    ("Piece?", "Zug, Cham", ""),
    ("Free?", "Aar has not won anything", ""),
    ("Words?", "aar 3 Gold, Bex Bains, 2030-01-02, -7.5, Yes, March 5", ""),
    ("Rows?", '[["Aar", 3], ["Bern", null]]', ""),
    ("Glued?", "Aar with 3 people, Bex Bains", ""),
]


@dataclass
class Cities(codegym.Dataset):
    '''Questions about cities.'''

    def splits(self):
        return ("test", "dev", "train")

    def databases(self):
        return [CITIES]

    def load(self, split):
        rows = ROWS if split == "test" else ROWS[:1]
        return [
            codegym.Example(f"{split}/{row}", question, answer, "cities", {"target": target} if target else {})
            for row, (question, answer, target) in enumerate(rows)
        ]


@codegym.hookimpl
def codegym_datasets():
    return {"cities": Cities}
"""
RUN_FILE = """
plugins = ["cities.py"]

[dataset]
plugin = "cities"

[policy]
plugin = "scripted"
completions = ["SELECT 1"]

[backend]
plugin = "sqlite"
max_steps = 100_000

[evaluation]
splits = ["test", "train", "dev"]

[guards.no_select_star]

[rewards.rems]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cities.py").write_text(PLUGIN)
    (tmp_path / "run.toml").write_text(RUN_FILE)
    return tmp_path / "run.toml"


def checked(file: Path, *overrides: str) -> Gold:
    return check_gold(load(file, overrides), Display(Console(quiet=True)))


def test_every_doubt_is_found_with_its_reason(file: Path) -> None:
    gold = checked(file)
    assert gold.sizes == {"test": 12, "train": 1, "dev": 1}
    assert [(doubt.example.id, doubt.reason) for doubt in gold.doubts] == [
        ("test/0", "two answers"),
        ("test/1", "two answers"),
        ("test/2", "empty"),
        ("test/3", "contradicted"),
        ("test/4", "fails"),
        ("test/5", "refused"),
        ("test/6", "unstable"),
        ("test/7", "cut"),
        ("test/8", "free text"),
        ("test/10", "free text"),
        ("test/11", "glued"),
        ("train/0", "two answers"),
        ("dev/0", "two answers"),
    ]
    details = {doubt.example.id: doubt.detail for doubt in gold.doubts}
    assert details["test/0"] == "'Aar', and 'Bex Bains' in test/1"
    assert details["test/3"] == "'Aar' against 'Bex  Bains'"
    assert details["test/4"] == "no such column: nme"
    assert details["test/5"].startswith("no_select_star: ")
    assert (details["test/7"], details["test/10"]) == ("'Zug'", "'Bern'")


def test_the_sample_has_no_doubtful_answer(run_file: Path) -> None:
    gold = checked(run_file, "dataset.test_size=60")
    assert (gold.sizes, gold.doubts) == ({"test": 60}, [])


def test_rows_that_differ_from_run_to_run_are_unstable(file: Path) -> None:
    counter = (
        "from codegym import Execution\n\n\nclass Counting(codegym.Backend):\n    '''Counts its calls.'''\n\n"
        "    calls = 0\n\n    def execute(self, code, example):\n        Counting.calls += 1\n"
        "        return Execution(('n',), ((Counting.calls,),))\n\n\n"
        "@codegym.hookimpl\ndef codegym_backends():\n    return {'counting': Counting}\n"
    )
    file.with_name("cities.py").write_text(PLUGIN + counter)
    file.write_text(RUN_FILE.replace('"sqlite"\nmax_steps = 100_000', '"counting"'))
    unstable = [doubt for doubt in checked(file).doubts if doubt.reason == "unstable"]
    assert [doubt.example.id for doubt in unstable] == ["test/0", "test/3", "test/4", "test/6", "train/0", "dev/0"]
    assert ", then '" in unstable[0].detail


def test_the_command_shows_counts_and_writes_what_a_run_leaves_out(cli: Cli, file: Path) -> None:
    finished = cli("check", file, "--gold", "--write-exclude", "doubtful.txt")
    assert finished.returncode == 0, finished.stderr
    for line in (
        "cut: a part is a piece of a cell",
        "    test/8: 'Aar has not won anything'",
        "run.toml: ready to run",
    ):
        assert line in finished.stdout
    assert file.with_name("doubtful.txt").read_text().splitlines()[:3] == [
        "# 12 examples whose answers are in doubt, by codegym check --gold",
        "test/0  # two answers",
        "test/1  # two answers",
    ]
    again = cli("check", file, "--write-exclude", "doubtful.txt")
    assert again.returncode == 2
    assert "--write-exclude doubtful.txt: is there already; name a new file" in again.stderr
    assert again.stdout == ""


def test_excluded_examples_are_left_out_and_said(cli: Cli, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.with_name("out.txt").write_text("# dirty\n\ntest/2 # empty\n  test/3\n")
    run = load(file, ["exclude=./out.txt"])
    assert [example.id for example in load_examples(run, ["test"])["test"]][:3] == ["test/0", "test/1", "test/4"]
    assert "test: 2 of 12 examples are left out (exclude)" in caplog.text
    assert len(load_examples(load(file), ["test"])["test"]) == 12
    assert run.resolved["exclude"] == str(file.with_name("out.txt"))
    finished = cli("eval", file, "--set", "exclude=./out.txt", "--out", "run")
    assert "2 of 12 examples are left out" in finished.stdout + finished.stderr + caplog.text
    assert len(Path("run/rollouts/test.before.jsonl").read_text().splitlines()) == 10


def test_the_gold_check_looks_at_what_is_excluded_too(file: Path) -> None:
    file.with_name("out.txt").write_text("test/2\n")
    assert checked(file, "exclude=./out.txt").sizes["test"] == 12


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("test/12\ntest/13\n", "out.txt: the dataset has no example test/12, test/13"),
        ("tset/1\n", "out.txt: the dataset has no split of tset/1; an id is <split>/<row>"),
        ("".join(f"test/{row}\n" for row in range(12)), "[dataset] split test has no examples left"),
    ],
)
def test_a_wrong_exclusion_is_an_error(text: str, complaint: str, cli: Cli, file: Path) -> None:
    file.with_name("out.txt").write_text(text)
    finished = cli("eval", file, "--set", "exclude=./out.txt")
    assert finished.returncode == 2
    assert complaint in finished.stderr


def test_an_exclusion_that_is_not_there_is_an_error(cli: Cli, file: Path) -> None:
    finished = cli("eval", file, "--set", "exclude=./nowhere.txt")
    assert finished.returncode == 2
    assert "exclude: " in finished.stderr
    assert "nowhere.txt cannot be read: No such file or directory" in finished.stderr


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        ("Aar, Bex ,,3", ["Aar", "Bex", "3"]),
        (" , ", []),
        ('[["Aar", 3], [null]]', ["Aar", "3"]),
        ("[]", []),
        ("[not, rows]", ["[not", "rows]"]),
    ],
)
def test_parts_are_what_stands_between_commas_or_cells_of_rows(answer: str, parts: list[str]) -> None:
    assert parts_of(answer) == parts


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("New Oslo Games", True),
        ("new  oslo games 2030", True),
        ("New Oslo", False),
        ("Games Games", False),
        ("Oslo Oslo 3 Yes January", True),
        ("1,000", False),
        ("2030-01-02 12:30", True),
        ("", True),
    ],
)
def test_a_text_is_spelt_by_cells_in_a_row(text: str, spelt: bool) -> None:
    table = {"place": [("New Oslo Games", 1), ("Oslo", None), ("Aar, Bex", 2)]}
    vocabulary = Vocabulary(Database("places", "", table))
    assert vocabulary.spells(text) == spelt
    assert vocabulary.cuts("bex")
    assert not vocabulary.cuts("Oslo")


@pytest.mark.parametrize(
    ("text", "glued"),
    [
        ("Aar in 2030", True),
        ("the Aar in 2030 then", True),
        ("New Oslo Games of Oslo", True),
        ("Aar was not 2030", False),
        ("Bern", False),
        ("not won", False),
    ],
)
def test_cells_with_one_other_word_at_a_place_are_glued(text: str, glued: bool) -> None:
    table = {"place": [("New Oslo Games",), ("Oslo",), ("Aar",)]}
    assert Vocabulary(Database("places", "", table)).glues(text) == glued


def test_an_id_may_hold_the_sign_of_comments(file: Path) -> None:
    file.with_name("cities.py").write_text(PLUGIN.replace('f"{split}/{row}"', 'f"{split}/C#{row}"'))
    gold = checked(file)
    file.with_name("out.txt").write_text(gold.exclusion())
    left = load_examples(load(file, ["exclude=./out.txt"]), ["test"])["test"]
    assert [example.id for example in left] == ["test/C#9", "test/C#11"]
