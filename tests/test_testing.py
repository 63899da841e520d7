"""The corpus is read precisely, `examine` sees what is wrong, the kit catches bad backends, the docs state outcomes."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from codegym import BackendError, ConfigError, Example, Execution
from codegym.config import load
from codegym.testing import CLASSES, Item, corpus, engines, examine, games
from codegym.testing.items import WORDS, read
from codegym.testing.probing import Probes, counts, failures_table
from codegym_sqlite import Sqlite

REPOSITORY = Path(__file__).parents[1]
SAFETY = REPOSITORY / "docs" / "safety.md"
CommandLine = Callable[..., subprocess.CompletedProcess[str]]
ITEM = """
[[item]]
id = "sleep"
class = "runaway"
code = "SELECT SLEEP(1000)"
expect = ["Timeout"]
unprotected = "never comes back"
"""


def item(**changes: object) -> Item:
    whole = {"id": "one", "class": "form", "code": "SELECT 1", "expect": ["answer"], "unprotected": "-", "engine": "e"}
    return Item.model_validate({**whole, **changes})


def problems(folder: Path, text: str) -> list[str]:
    file = folder / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(file)
    return [problem.removeprefix(f"{file}: ") for problem in caught.value.problems]


def test_the_corpus_is_large_and_has_every_class() -> None:
    own = {engine: [item for item in corpus(engine) if item.engine == engine] for engine in engines()}
    assert len(corpus()) >= 20
    assert len(own["mariadb"]) >= 60
    assert len(own["sqlite"]) >= 45
    assert sum(map(len, own.values())) + len(corpus()) >= 120
    for engine, items in own.items():
        assert {item.kind for item in [*corpus(), *items]} == set(CLASSES), engine


def test_an_engine_without_items_of_its_own_has_those_for_all() -> None:
    assert corpus("nothing-like-it") == corpus()
    assert {item.engine for item in corpus("sqlite")} == {"common", "sqlite"}


def test_what_writes_is_not_called_harmless() -> None:
    """Where the protections are missing, such an item would do what it says."""
    write = re.compile(r"(INSERT|DELETE|DROP|TRUNCATE|UPDATE (?!pg_settings)|GRANT|LOAD|SHUTDOWN)\b")
    servers = [item for engine in ("mariadb", "postgres") for item in corpus(engine)]
    assert [item.name for item in servers if item.harmless and write.match(item.text)] == []


def test_code_can_be_generated_or_hold_what_toml_cannot() -> None:
    generated = {"before": "SELECT ", "repeat": "(", "times": 3, "after": "1", "close": ")", "end": " x"}
    assert item(code=None, generate=generated).text == "SELECT (((1))) x"
    assert item(code=None, escaped=r"SELECT '\ud800'").text == "SELECT '\ud800'"
    assert item(code="").text == ""


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"runaway"', '"runway"', "item sleep: class: must be 'runaway', 'bomb', 'write'"),
        ('["Timeout"]', '["TimeOut"]', "item sleep: expect.0: must be 'answer', 'truncated', 'error', 'Timeout'"),
        ('["Timeout"]', "[]", "item sleep: expect: "),
        ('class = "runaway"\n', "", "item sleep: class: missing"),
        ("unprotected =", "unprotectd =", "item sleep: unprotectd: unknown setting; did you mean unprotected?"),
        ('id = "sleep"', 'id = "Sleep!"', "item Sleep!: id: must match pattern"),
        ("code =", 'escaped = "x"\ncode =', "item sleep: must have one of code, escaped and generate"),
        (
            "unprotected =",
            'probe = "SELECT 1"\nunprotected =',
            "item sleep: must have both probe and clean, or neither",
        ),
        ("unprotected =", 'message = "("\nunprotected =', "item sleep: message: must be a regular expression"),
        ("unprotected =", "rows = [[1]]\nunprotected =", 'item sleep: has rows, so expect must name "answer"'),
        ("[[item]]", "[[items]]", "unknown table items, only [[item]] is known"),
        ('"Timeout"]', '"Timeout"', "Unclosed array"),
    ],
)
def test_a_mistake_in_a_file_is_told_precisely(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    told = problems(tmp_path, ITEM.replace(old, new))
    assert any(complaint in line for line in told), told


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    told = problems(tmp_path, ITEM + ITEM + ITEM.replace("sleep", "other").replace("Timeout", "Time"))
    assert told[0].startswith("item other: expect.0: must be")
    assert told[-1] == "two items have the id sleep"
    assert problems(tmp_path, "") == ["holds no [[item]]"]


def test_only_the_kit_imports_pytest() -> None:
    code = (
        "import sys, codegym.testing, codegym.testing.probing; codegym.testing.corpus(); print('pytest' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


class Scripted(Sqlite):
    """SQLite, but for what a test changes."""

    def __init__(self, answer: Callable[[str], Execution | None]) -> None:
        super().__init__()
        self.answer = answer
        self.open([games()])

    def execute(self, code: str, example: Example) -> Execution:
        return self.answer(code) or super().execute(code, example)


def complaint(answer: Callable[[str], Execution | None], **changes: object) -> str:
    backend = Scripted(answer)
    try:
        return examine(backend, item(**changes)).complaint
    finally:
        backend.close()


def test_an_outcome_as_expected_has_no_complaint() -> None:
    assert complaint(lambda code: None, rows=[[1]], probe="SELECT 'a'", clean=[["a"]]) == ""
    assert complaint(lambda code: None, code="SELECT x", expect=["error"], message="no such column: x") == ""
    assert complaint(lambda code: None, code="SELECT a.name FROM athlete a, format f", expect=["truncated"]) == ""


@pytest.mark.parametrize(
    ("execution", "changes", "expected"),
    [
        (
            Execution(("a",), ((0,),)),
            {"expect": ["Timeout"]},
            r"e/one: expected Timeout, got answer \[\(0,\)\] in 0.0 s",
        ),
        (
            Execution(error="Timeout", message="late"),
            {"expect": ["error", "truncated"]},
            r"expected error or truncated",
        ),
        (Execution(error="Oops", message="that"), {"expect": ["error"], "message": "this"}, "a message with 'this'"),
        (Execution(error="Oops"), {"expect": ["error"]}, "expected a message with the error"),
        (Execution(("a",), ((2,),)), {"rows": [[1]]}, r"expected the rows \[\(1,\)\], got answer \[\(2,\)\]"),
        (Execution(("a",), ((1,),)), {"repeatable": False}, "expected repeatable=False"),
        (Execution(("a",), ((object(),),)), {}, "rows of plain values"),  # type: ignore[arg-type]
        (Execution(("a", "b"), ((1,),)), {}, "rows of plain values"),
        (Execution(("a",), ((1,),) * 10_001), {}, "more rows than max_rows"),
        (Execution(("a",), (("x" * 1_000_001,),)), {}, "more bytes than max_bytes"),
    ],
)
def test_an_outcome_that_is_not_as_expected_is_told(
    execution: Execution, changes: dict[str, object], expected: str
) -> None:
    told = complaint(lambda code: execution if code == "SELECT 1" else None, **changes)
    assert re.search(expected, told), told


def test_what_an_item_leaves_behind_is_told() -> None:
    left = Execution(("a",), ((42,),))
    told = complaint(lambda code: left if "left" in code else None, probe="SELECT 'left'", clean=[["left"]])
    assert told == "e/one: it left something behind: SELECT 'left' gave answer [(42,)], not [('left',)]"


def test_a_canary_that_is_wrong_or_slow_is_told() -> None:
    def slow(code: str) -> None:
        time.sleep(0.06 if "medal" in code else 0)

    assert re.search(r"the canary after it took \d\d+ ms", complaint(slow))
    wrong = Execution(("a",), ((19_999,),))
    assert "the canary after it gave answer [(19999,)]" in complaint(lambda code: wrong if "medal" in code else None)


def test_a_failure_of_the_machine_is_told_and_not_raised() -> None:
    def fail(code: str) -> None:
        if code == "SELECT 1":
            raise BackendError("the disk is full")

    assert complaint(fail) == "e/one: raised BackendError: the disk is full"


KIT = """
import threading, time
import codegym
from codegym.testing import kit
from codegym.testing.kit import BackendKit
from codegym_sqlite import Sqlite

kit.PATIENCE = 0.5

class Bad(codegym.Backend):
    def __init__(self):
        self.good = Sqlite(time_limit=0.5)

    def open(self, databases):
        threading.Thread(target=time.sleep, args=(15,), daemon=True).start()
        if any(database.name == "broken" for database in databases):
            raise ValueError("broken")
        self.good.open(databases)

    def execute(self, code, example):
        if example.database != "games":
            return codegym.Execution(error="Unknown", message="no such database")
        execution = self.good.execute(code, example)
        if execution.error:
            raise ValueError(execution.message)
        return execution

    def close(self):
        self.good.close()

class TestGood(BackendKit):
    engine = "sqlite"
    def new_backend(self):
        return Sqlite(time_limit=0.5)

class TestBad(BackendKit):
    def new_backend(self):
        return Bad()
"""


def test_the_kit_passes_a_good_backend_and_fails_a_bad_one(tmp_path: Path) -> None:
    (tmp_path / "test_kit.py").write_text(KIT)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rfp",
        "-p",
        "no:cacheprovider",
        "-k",
        "not hostile_item or prose",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    result = dict(
        re.findall(r"^(?:PASSED|FAILED) test_kit.py::(Test\w+::\w+(?:\[.*?\])?)()", done.stdout, re.MULTILINE)
    )
    failed = set(re.findall(r"^FAILED test_kit.py::Test(\w+::\w+)", done.stdout, re.MULTILINE))
    assert len(result) == 24, done.stdout
    assert failed == {
        "Bad::test_closing_leaves_no_thread_process_or_file_behind",
        "Bad::test_closing_works_after_an_opening_that_failed",
        "Bad::test_a_mistake_of_the_code_is_data_and_no_exception",
        "Bad::test_an_unknown_database_is_a_mistake_of_the_plugin_or_its_user",
        "Bad::test_many_requests_are_answered_in_order",
        "Bad::test_requests_given_up_half_way_do_not_answer_later_ones",
        "Bad::test_a_hostile_item_comes_out_as_the_corpus_says",
    }, done.stdout


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[Item]:
    """The corpus, for `codegym check --hostile`: two items."""
    items = [item(id="one", rows=[[1]]), item(id="two", code="SELECT x", expect=["error"], **{"class": "parser"})]
    monkeypatch.setattr("codegym.testing.probing.corpus", lambda engine: items)
    return items


def test_check_tries_the_corpus_when_asked(cli: CommandLine, run_file: Path, few: list[Item]) -> None:
    assert "hostile" not in cli("check", run_file).stdout
    checked = cli("check", run_file, "--hostile")
    assert "hostile items that came out as they should: parser 1 of 1, form 1 of 1" in checked.stdout
    assert checked.stdout.endswith("ready to run\n")
    assert checked.returncode == 0


def test_check_fails_when_a_protection_does_not_hold(cli: CommandLine, run_file: Path, few: list[Item]) -> None:
    few.append(item(id="three", expect=["Timeout"], unprotected="hangs"))
    checked = cli("check", run_file, "--hostile")
    assert re.search(r"e/three +expected Timeout, got answer .* hangs", checked.stdout)
    assert "1 of 3 hostile items did not, see above" in checked.stderr
    assert "ready to run" not in checked.stdout
    assert checked.returncode == 2


def test_check_asks_before_it_tries_a_server_of_the_users(
    cli: CommandLine,
    run_file: Path,
    few: list[Item],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few.append(item(id="three", harmless=False))
    monkeypatch.setattr(Probes, "server", "host = db.example")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    asked = cli("check", run_file, "--hostile")
    assert "Try 2 hostile queries on your server (host = db.example)?" in asked.stdout + asked.stderr
    assert "hostile items" not in asked.stdout
    assert asked.returncode == 1
    assert "form 1 of 1" in cli("check", run_file, "--hostile", "--yes").stdout


def test_a_server_of_the_users_is_known_by_the_settings_that_name_it(run_file: Path) -> None:
    mine = load(run_file, ["backend.plugin=mariadb", "backend.socket=/run/db/socket", "backend.user=trainer"])
    assert Probes(mine).server == "socket = /run/db/socket, user = trainer"
    assert all(item.harmless for item in Probes(mine).items)
    ours = load(run_file, ["backend.plugin=mariadb"])
    assert Probes(ours).server == ""
    assert len(Probes(ours).items) == len(corpus("mariadb"))


def test_a_backend_that_runs_no_sql_cannot_be_tried(
    cli: CommandLine, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codegym.testing.probing.CANARY", "What is the answer?")
    checked = cli("check", run_file, "--hostile")
    assert 'plugin = "sqlite" cannot be tried: the hostile corpus is SQL' in checked.stderr
    assert checked.returncode == 2


def test_the_table_of_failures_names_only_failures() -> None:
    backend = Sqlite()
    backend.open([games()])
    outcomes = [examine(backend, item(expect=[word])) for word in ("answer", "Timeout")]
    backend.close()
    assert failures_table(outcomes).row_count == 1
    assert counts(outcomes) == "form 1 of 2"


def stated(items: Sequence[Item]) -> str:
    """The table of docs/safety.md: each item for all engines, its beginning, and what may come of it."""
    lines = ["| item | code | outcome |", "|---|---|---|"]
    for one in items:
        shown = one.text.encode("unicode_escape").decode().replace("|", r"\|")
        code = f"`` {shown[:44]}{'...' if len(shown) > 44 else ''} ``" if shown else "nothing"
        lines.append(f"| `{one.id}` | {code} | {', '.join(one.expect)} |")
    return "\n".join(lines)


def test_the_docs_state_the_outcome_of_every_item_for_all_engines() -> None:
    """To mend it, copy the table that this prints."""
    assert stated(corpus()) in SAFETY.read_text(encoding="utf-8"), stated(corpus())


@pytest.mark.parametrize("name", [*CLASSES, *WORDS])
def test_the_docs_explain_every_class_and_every_outcome(name: str) -> None:
    assert f"\n| `{name}` | " in SAFETY.read_text(encoding="utf-8")


def test_the_docs_name_the_items_of_every_engine() -> None:
    assert [name for name in ("common", *engines()) if f"`{name}.toml`" not in SAFETY.read_text(encoding="utf-8")] == []
