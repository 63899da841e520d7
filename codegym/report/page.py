"""Write a run down as a page for people: results, baselines, and a picture of its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from codegym.jsonl import read_lines
from codegym.report.folder import RunFolder
from codegym.report.plots import picture_of_training
from codegym.report.table import results_markdown

PICTURE = "training.png"
_BASELINES = """
Rows that begin with a dash are baselines: what is scored, by the same rewards, without any model. The best constant is
the one answer to all questions of the split that scores best, chosen with all answers in hand; the constant dump is
Yes, No and the integers from 0 to 2030 at once; the third is the commonest answer of the training questions. A result
that is not far above them says little.
"""
_FILES = """
Settings are in `run.toml`, what the run was made of in `manifest.json`, every figure in `report.json` and
`metrics.jsonl`, every completion in `rollouts/`.
"""


def write_page(folder: RunFolder, report: Mapping[str, Any]) -> None:
    """Write `report.md` into the folder of a run and, of a training, the picture that stands in it."""
    metrics = folder.path / "metrics.jsonl"
    records = read_lines(metrics) if metrics.exists() and not folder.rank else []
    picture = picture_of_training(records, report["watched"]) if records else b""
    if picture:
        folder.write_bytes(PICTURE, picture)
    folder.write_text("report.md", page(report, PICTURE if picture else ""))


def page(report: Mapping[str, Any], picture: str = "") -> str:
    """Return the report in Markdown; `picture` is the name of the file that shows its training."""
    splits: Mapping[str, Mapping[str, Any]] = report["splits"]
    trained = any("after" in split for split in splits.values())
    sections = [
        f"# {report['name']}",
        report.get("note", ""),
        "## Results",
        f"{'Before → after training, in' if trained else 'In'} percent, 95 % intervals of the last figure in brackets.",
        results_markdown(report).strip(),
        _BASELINES.strip() if any("baselines" in split for split in splits.values()) else "",
        _won_and_lost(splits),
        f"## Training\n\n![Figures of the training by step]({picture})" if picture else "",
        report.get("divergence", {}).get("warning", ""),
        _FILES.strip(),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _won_and_lost(splits: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how many questions the training won and lost, empty if nobody counted."""
    paired = {name: split["paired"] for name, split in splits.items() if "paired" in split}
    if not paired:
        return ""
    lines = [f"| {name} | {each['won']} | {each['lost']} | {each['p_value']:.2g} |" for name, each in paired.items()]
    title = "Questions that the training won and lost, with McNemar's exact test:\n\n"
    return title + "\n".join(["| split | won | lost | p |", "| --- | ---: | ---: | ---: |", *lines])
