"""Count the dirt in the release, for `codegym check`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from codegym import ConfigError, Finding
from codegym_temptabqa.databases import infoboxes

if TYPE_CHECKING:
    from codegym_temptabqa.release import Rows, Temptabqa

_DIRT = {
    "begin with a blank": re.compile(r"\s"),
    "hold `m freestyle` for a city (the release split `1500 m freestyle`)": re.compile(r"(.*,)?\s*m freestyle\s*(,|$)"),
    "hold a year such as 1500 (from the same)": re.compile(r".*\b1[45]\d\d\b(?! [my])"),
    "are a sentence that no medal was found": re.compile(r".*has not won any|No international medals found"),
}


def describe(dataset: Temptabqa) -> Iterator[Finding]:
    """Yield the counts of each split and database, and what is dirty in them."""
    if "{question}" not in dataset.prompt:
        yield Finding("error", "temptabqa: the setting `prompt` has no {question}")
    rows: dict[str, Rows] = {}
    problems: dict[str, None] = {}
    for split in dataset.splits():
        try:
            rows[split] = dataset.rows(split)
        except ConfigError as error:
            problems.update(dict.fromkeys(error.problems))
    if problems:
        yield from (Finding("error", problem) for problem in problems)
        return
    yield Finding("note", f"temptabqa: {', '.join(f'{split} {len(its)}' for split, its in rows.items())} rows")
    yield from _repetitions(rows)
    yield _dev_seen_in_train(rows, dataset.drop_dev_seen_in_train)
    yield from _tests_seen_in_train(rows)
    yield from _dirty_answers(rows)
    for name, contexts in dataset.contexts().items():
        yield from _unread(name, contexts)


def _repetitions(rows: dict[str, Rows]) -> Iterator[Finding]:
    repeated = {split: len(its) - len({row["Questions"] for row in its}) for split, its in rows.items()}
    if any(repeated.values()):
        yield Finding("warning", f"temptabqa: questions that stand in their split already: {_counts(repeated)}")


def _dev_seen_in_train(rows: dict[str, Rows], dropped: bool) -> Finding:
    train = {row["Questions"] for row in rows["train"]}
    seen = [row["Questions"] for row in rows["dev"] if row["Questions"] in train]
    what = f"{len(set(seen))} questions of dev ({len(seen)} rows) also stand in train"
    if dropped:
        left = len(rows["dev"]) - len(seen)
        return Finding("note", f"temptabqa: {what}; they are left out, dev has {left} (drop_dev_seen_in_train)")
    return Finding("warning", f"temptabqa: {what}; `drop_dev_seen_in_train = true` leaves them out")


def _tests_seen_in_train(rows: dict[str, Rows]) -> Iterator[Finding]:
    train = {row["Questions"] for row in rows["train"]}
    seen = {
        split: sum(row["Questions"] in train for row in its)
        for split, its in rows.items()
        if split not in ("train", "dev")
    }
    if any(seen.values()):
        yield Finding("warning", f"temptabqa: test questions that also stand in train: {_counts(seen)}")


def _dirty_answers(rows: dict[str, Rows]) -> Iterator[Finding]:
    for what, pattern in _DIRT.items():
        counts = {split: sum(bool(pattern.match(row["Answers"])) for row in its) for split, its in rows.items()}
        if any(counts.values()):
            yield Finding("warning", f"temptabqa: answers that {what}: {_counts(counts)}")


def _unread(name: str, contexts: Iterable[str]) -> Iterator[Finding]:
    athletes, problems = infoboxes(contexts)
    reasons = Counter(problem.reason for problem in problems)
    yield Finding("note", f"temptabqa: the database {name} has {len(athletes)} athletes")
    if reasons:
        yield Finding("warning", f"temptabqa: infoboxes of the database {name}: {_counts(reasons)}")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items() if number)
