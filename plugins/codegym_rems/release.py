"""Compare as the two evaluation scripts of TEMPTABQA-C do: text against text, both split on commas."""

from __future__ import annotations

from collections.abc import Iterable

from codegym import Row
from codegym_rems.answers import Comparison, cell_text, overlap


def release_text(rows: Iterable[Row]) -> str:
    """Return rows as the release writes an answer: cells that are not NULL joined by a space, rows by a comma."""
    return ",".join(" ".join([cell_text(cell) for cell in row if cell is not None]) for row in rows)


def release_parts(text: str) -> list[str]:
    """Return the parts of a text: split on commas, stripped, empty ones kept."""
    return [part.strip() for part in text.split(",")]


def release_comparison(answer: str, generated: str, *, rounded: bool) -> Comparison:
    """Return how a generated text agrees with the reference text.

    `recall` is REMS: the share of the reference's parts that equal a part of the text or stand inside one between
    spaces, letter for letter. If `rounded`, to two places, as `relaxed_exact_match_score.py` returns it. `exact`: that
    is 1; not rounded, it is EMS as `exact_match_score.py` returns it. `f1` is ours, of the parts that are not empty.
    """
    gold, there = release_parts(answer), release_parts(generated)
    text = f" {' , '.join(there)} "  # no part holds a comma, so nothing is found across two of them
    recall = sum(f" {part} " in text for part in gold) / len(gold)
    recall = round(recall, 2) if rounded else recall
    wanted, distinct = (dict.fromkeys(part for part in parts if part) for parts in (gold, there))
    equal = {part: part for part in wanted if part in distinct}
    return Comparison(recall == 1, recall, overlap([*wanted], distinct, equal)[1])
