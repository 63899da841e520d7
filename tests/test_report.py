"""A run's folder stays readable through any crash, and its numbers say what was measured."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from codegym import BackendError, ConfigError, Example, Execution, Rollout, read_lines
from codegym.report import (
    Display,
    RunFolder,
    by_kind,
    compare,
    explain,
    results_markdown,
    rollout_record,
    summarise,
)

STARTED = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def rollout(ems: float = 1.0, kind: str = "", execution: Execution | None = None, **fields: object) -> Rollout:
    example = Example("test/0", "How many?", "2", metadata={"kind": kind} if kind else {})
    metrics = {"error_rate": 0.0, "ems": ems}
    values: dict[str, object] = {"scores": {"rems": ems}, "metrics": metrics, "reward": ems, **fields}
    return Rollout(example, "SELECT 2", "SELECT 2", execution=execution or Execution(("n",), ((2,),)), **values)  # type: ignore[arg-type]


def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "out", "name", STARTED)


def test_a_run_gets_a_folder_of_its_name_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunFolder.create(None, "name", STARTED).path == Path("runs/name/20300102-030405")
    assert RunFolder.create(None, "name", STARTED).path == Path("runs/name/20300102-030405-2")


def test_a_folder_that_is_not_empty_or_is_a_file_is_refused(tmp_path: Path) -> None:
    folder(tmp_path)
    with pytest.raises(ConfigError, match="is not empty: a run never writes over another; name a new folder"):
        folder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--out .*file: cannot be a run folder: File exists"):
        RunFolder.create(tmp_path / "file", "name", STARTED)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    run_folder = folder(tmp_path)
    run_folder.write_json("report.json", {"n": 1})
    with pytest.raises(TypeError):
        run_folder.write_json("report.json", {"n": object()})
    assert json.loads((run_folder.path / "report.json").read_text()) == {"n": 1}


def test_a_crash_while_writing_leaves_the_file_before(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from codegym.report import RunFolder\n"
        "folder = RunFolder(Path(sys.argv[1]))\n"
        "folder.write_text('report.json', 'first')\n"
        "with folder.lines('metrics.jsonl') as lines:\n"
        "    lines.write([{'step': 1}])\n"
        "    os.fsync = lambda descriptor: os.kill(os.getpid(), 9)\n"
        "    folder.write_text('report.json', 'second' * 100_000)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert killed.returncode == -9
    assert (tmp_path / "report.json").read_text() == "first"
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_full_disk_is_the_machines_failure() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with (
        pytest.raises(BackendError, match=r"cannot write /dev/full: No space left on device; .* before is whole"),
        RunFolder(Path("/dev")).lines("full") as lines,
    ):
        lines.write([{"text": "x" * 100_000}])


def write_until_killed(path: Path) -> None:
    """Write every sort of file again and again, each with its number all over."""
    run_folder = RunFolder(path)
    number = 0
    with run_folder.lines("metrics.jsonl") as lines:
        while True:
            number += 1
            run_folder.write_json("report.json", [number] * 20_000)
            lines.write({"batch": number, "line": line, "text": "é" * 5_000} for line in range(20))
            with run_folder.whole_folder(f"model-{number}") as model:
                for name in ("weights", "tokenizer"):
                    (model / name).write_text(f"{number} " * 10_000)


def test_thirty_kills_leave_nothing_half_written(tmp_path: Path) -> None:
    dice = random.Random(0)
    complete = 0
    for attempt in range(30):
        path = tmp_path / str(attempt)
        path.mkdir()
        writer = multiprocessing.get_context("fork").Process(target=write_until_killed, args=(path,))
        writer.start()
        while not (path / "report.json").exists():
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.05))
        writer.kill()
        writer.join()
        assert len(set(json.loads((path / "report.json").read_text()))) == 1
        if (path / "metrics.jsonl").exists():
            records = read_lines(path / "metrics.jsonl")
            assert [(record["batch"], record["line"]) for record in records] == [
                (1 + index // 20, index % 20) for index in range(len(records))
            ]
        for model in path.glob("model-*"):
            complete += 1
            number = model.name.removeprefix("model-")
            assert {file.name: file.read_text() for file in model.iterdir()} == dict.fromkeys(
                ("weights", "tokenizer"), f"{number} " * 10_000
            )
    assert complete > 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 KB, where this user may mount one."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def test_what_was_written_before_the_disk_was_full_is_whole(small_disk: Path) -> None:
    run_folder = RunFolder(small_disk)
    run_folder.write_json("report.json", ["first"])
    full = r"cannot write .*/{}: No space left on device; what was written before is whole"
    with run_folder.lines("metrics.jsonl") as lines:
        lines.write([{"step": 1}])
        with pytest.raises(BackendError, match=full.format("metrics.jsonl")):
            lines.write({"step": step, "text": "x" * 1_000} for step in range(2, 300))
        assert read_lines(small_disk / "metrics.jsonl") == [{"step": 1}]
        lines.write([{"step": 2}])
    with pytest.raises(BackendError, match=full.format("report.json")):
        run_folder.write_json("report.json", ["second" * 100_000])
    with pytest.raises(BackendError, match=full.format("model")), run_folder.whole_folder("model") as model:
        (model / "weights").write_bytes(bytes(300_000))
    assert json.loads((small_disk / "report.json").read_text()) == ["first"]
    assert read_lines(small_disk / "metrics.jsonl") == [{"step": 1}, {"step": 2}]
    assert sorted(os.listdir(small_disk)) == ["metrics.jsonl", "report.json"]


def test_a_folder_that_could_not_be_finished_is_not_there(tmp_path: Path) -> None:
    run_folder = folder(tmp_path)
    with (
        pytest.raises(BackendError, match=r"cannot write .*model: Is a directory"),
        run_folder.whole_folder("model") as model,
    ):
        model.write_text("")
    assert sorted(os.listdir(run_folder.path)) == ["rollouts"]
    with run_folder.whole_folder("model") as model:
        (model / "weights").touch()
        assert not (run_folder.path / "model").exists()
    assert os.listdir(run_folder.path / "model") == ["weights"]


@pytest.mark.parametrize("torn", ['{"step": 3, "te', '{"step": 3, "text": "\ud83d'])
def test_a_last_line_that_was_cut_off_is_dropped_and_said(
    torn: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n{"step": 2}\n' + torn.encode(errors="surrogatepass"))
    with caplog.at_level(logging.WARNING):
        assert read_lines(file) == [{"step": 1}, {"step": 2}]
    assert f"{file}, line 3 is cut off and dropped" in caplog.text
    file.write_text('{"step": 1}')  # whole, though nothing ends the line
    assert read_lines(file) == [{"step": 1}]


def test_a_line_cut_off_in_the_middle_of_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"st\n{"step": 3}\n[]\n')
    with pytest.raises(ConfigError) as caught:
        read_lines(file)
    assert caught.value.problems == [f"{file}, line {number}: expected {{...}}" for number in (2, 4)]
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere: No such file or directory"):
        read_lines(tmp_path / "nowhere")


def test_toml_has_no_none_and_keeps_the_rest(tmp_path: Path) -> None:
    run_folder = folder(tmp_path)
    run_folder.write_toml("run.toml", {"a": {"b": None, "c": [1, 2]}, "d": "two\nlines", "e": 1e-5})
    table = tomllib.loads((run_folder.path / "run.toml").read_text())
    assert table == {"a": {"c": [1, 2]}, "d": "two\nlines", "e": 1e-5}


def test_a_rollout_is_recorded_whatever_its_cells_hold() -> None:
    cells = (None, 1, 2.5, "text \ud800", b"\xff", Decimal("1.10"), date(2030, 1, 2), STARTED, timedelta(seconds=61))
    execution = Execution(tuple("abcdefghi"), (cells,) * 150, seconds=0.1234567)
    record = json.loads(json.dumps(rollout_record(rollout(execution=execution), moment="before", step=3)))
    assert (record["id"], record["moment"], record["step"]) == ("test/0", "before", 3)
    assert len(record["execution"]["rows"]) == 100
    assert record["execution"]["row_count"] == 150
    expected = [
        None,
        1,
        2.5,
        "text ?",
        {"base64": "/w=="},
        {"decimal": "1.10"},
        {"date": "2030-01-02"},
        {"datetime": "2030-01-02T03:04:05+00:00"},
        {"microseconds": 61_000_000},
    ]
    assert record["execution"]["rows"][0] == expected


def test_a_cell_that_json_cannot_hold_keeps_the_file_json(tmp_path: Path) -> None:
    with folder(tmp_path).lines("rollouts/test.jsonl") as lines:
        lines.write([rollout_record(rollout(execution=Execution(("n",), ((float("inf"),), (float("nan"),)))))])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads((tmp_path / "out" / "rollouts" / "test.jsonl").read_text(), parse_constant=refuse)


def test_a_summary_holds_means_and_intervals() -> None:
    summary = summarise([rollout(1.0), rollout(1.0), rollout(0.0), rollout(0.0)])
    assert (summary["n"], summary["ems"], summary["error_rate"], summary["reward"]) == (4, 0.5, 0.0, 0.5)
    assert summary["ems_interval"] == pytest.approx([0.150, 0.850], abs=0.001)  # Wilson, 2 of 4
    assert summary["error_rate_interval"] == pytest.approx([0.0, 0.490], abs=0.001)
    assert summarise([]) == {"n": 0}


def test_kinds_of_questions_are_summed_up_apart() -> None:
    kinds = by_kind([rollout(1.0, "easy"), rollout(0.0, "hard"), rollout(0.0, "easy"), rollout(1.0)])
    assert {kind: (summary["n"], summary["ems"]) for kind, summary in kinds.items()} == {
        "easy": (2, 0.5),
        "hard": (1, 0),
    }


def test_before_and_after_are_compared_question_by_question() -> None:
    before = [rollout(ems) for ems in (0, 0, 0, 0, 0, 0, 1, 1)]
    after = [rollout(ems) for ems in (1, 1, 1, 1, 1, 1, 0, 1)]
    paired = compare(before, after, "ems")
    assert (paired["won"], paired["lost"]) == (6, 1)
    assert paired["p_value"] == pytest.approx(0.125)  # 2 * (1 + 7) / 2**7


def test_the_table_shows_before_and_after_with_intervals() -> None:
    splits = {"test": {"before": summarise([rollout(0.0)] * 4), "after": summarise([rollout(1.0)] * 4)}}
    report = {"name": "mine", "splits": splits}
    assert results_markdown(report).splitlines() == [
        "| split | n | EMS | errors |",
        "| --- | ---: | ---: | ---: |",
        "| test | 4 | 0.0 → 100.0 [51.0, 100.0] | 0.0 → 0.0 [0.0, 49.0] |",
    ]


def test_a_report_of_other_metrics_shows_the_reward() -> None:
    plain = rollout(metrics={}, reward=12.5)
    report = {"name": "mine", "splits": {"test": {"before": summarise([plain])}}}
    assert "| test | 1 | 12.5 |" in results_markdown(report)


def test_what_is_printed_is_taken_literally() -> None:
    console = Console(record=True, width=100)
    odd = rollout(execution=Execution(("[red]n[/red]",), (("[bold]x[/bold]",), (None,))))
    console.print(explain(odd, {"rems": "[dim]because[/dim]"}))
    shown = console.export_text()
    for text in ("[red]n[/red]", "[bold]x[/bold]", "NULL", "[dim]because[/dim]"):
        assert text in shown


def test_a_phase_says_its_name_on_something_that_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(Console(width=100))
    with display.phase("execute", 3, "queries") as outer:
        outer.advance(3)
        with display.phase("evaluate dev", 1, "rollouts") as inner:
            inner.advance(1)
    assert "execute" in capsys.readouterr().out
