"""Find reference answers that no policy should be judged by: empty, contradicted, unstable, out of reach."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from codegym.errors import ConfigError
from codegym.grading import Grader
from codegym.report import Display
from codegym.run import load_examples, open_lanes
from codegym.settings import Run
from codegym.types import Example, Execution
from codegym.vocabulary import Vocabulary

REASONS = {
    "empty": "the answer has no part",
    "two answers": "the same question has another answer elsewhere",
    "refused": "a guard refuses the known good completion",
    "fails": "the known good completion does not run to its end",
    "contradicted": "the known good completion gives something else",
    "unstable": "the known good completion gives other rows when it runs again",
    "cut": "a part is a piece of a cell that holds a comma, where answers are split",
    "free text": "a part is no number, date, yes or no, and no cells of the database in a row",
    "glued": "a part is such cells with other words between them, which a query has to write itself",
}
"""Why an answer is in doubt. The first two look at the answers, the next four need `metadata["target"]`."""
IN_REACH = "glued"

SHOWN_ROWS = 3


@dataclass(frozen=True)
class Doubt:
    """A reference answer that should not be trusted, with one of the `REASONS` and what it was found by."""

    example: Example
    reason: str
    detail: str


@dataclass(frozen=True)
class Gold:
    """How many examples each split of a run has, and what is doubtful in them."""

    sizes: Mapping[str, int]
    doubts: Sequence[Doubt]

    def exclusion(self) -> str:
        """Return the text of a file for `exclude`: the ids in doubt, each with its reasons, but what is in reach."""
        reasons: dict[str, list[str]] = {}
        for doubt in [doubt for doubt in self.doubts if doubt.reason != IN_REACH]:
            reasons.setdefault(doubt.example.id, []).append(doubt.reason)
        lines = [f"{name}  # {', '.join(dict.fromkeys(its))}" for name, its in reasons.items()]
        return "\n".join([f"# {len(lines)} examples whose answers are in doubt, by codegym check --gold", *lines, ""])


def check_gold(run: Run, display: Display) -> Gold:
    """Look at every reference answer of the splits that the run reads, those too that it excludes.

    Known good completions run twice, in another order and without a cache.
    """
    splits = [*run.evaluation.splits, *([run.training.split, run.evaluation.dev] if run.policy.trainable else [])]
    examples = load_examples(replace(run, exclude=None), splits)
    everything = [example for members in examples.values() for example in members]
    doubts = [*_empty(everything), *_two_answers(everything), *_run_twice(run, display, everything)]
    doubts += _out_of_reach(run, everything)
    order = {example.id: row for row, example in enumerate(everything)}
    doubts.sort(key=lambda doubt: order[doubt.example.id])
    return Gold({split: len(members) for split, members in examples.items()}, doubts)


def write_exclusion(gold: Gold, file: Path) -> None:
    """Write the ids in doubt into a new file; raise `ConfigError` if that cannot be."""
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(gold.exclusion())
    except OSError as error:
        raise ConfigError(f"--write-exclude {file}: cannot be written: {error.strerror}") from None


def parts_of(answer: str) -> list[str]:
    """Return the parts of a reference answer: the cells of rows in JSON, else what stands between commas."""
    if answer.lstrip().startswith("["):
        try:
            rows = json.loads(answer)
            return [str(cell) for row in rows for cell in row if cell is not None]
        except (ValueError, TypeError):
            pass
    return [part for piece in answer.split(",") if (part := piece.strip())]


def _empty(examples: Sequence[Example]) -> Iterator[Doubt]:
    for example in examples:
        # Supervised pairs have a target instead of an answer.
        if not parts_of(example.answer) and (example.answer.strip() or not example.metadata.get("target")):
            yield Doubt(example, "empty", repr(example.answer))


def _two_answers(examples: Sequence[Example]) -> Iterator[Doubt]:
    asked: dict[str, list[Example]] = {}
    for example in examples:
        if example.answer.strip():
            asked.setdefault(json.dumps([example.prompt, example.database]), []).append(example)
    for same in asked.values():
        answers = [frozenset(parts_of(example.answer)) for example in same]
        firsts: dict[frozenset[str], Example] = {}
        for answer, example in zip(answers, same, strict=True):
            firsts.setdefault(answer, example)
        for answer, example in zip(answers, same, strict=True):
            if other := next((firsts[another] for another in firsts if another != answer), None):
                yield Doubt(example, "two answers", f"{example.answer!r}, and {other.answer!r} in {other.id}")


def _run_twice(run: Run, display: Display, examples: Sequence[Example]) -> Iterator[Doubt]:
    targets = [example for example in examples if example.metadata.get("target") and example.answer.strip()]
    if not targets:
        return
    uncached = replace(run, execution=run.execution.model_copy(update={"cache": 0}))
    with (
        open_lanes(uncached, display) as lanes,
        display.phase("run known good completions twice", len(targets), "answers") as bar,
    ):
        first = Grader(lanes, run.guards, run.rewards).grade(targets, [each.metadata["target"] for each in targets])
        ran = [rollout for rollout in first if rollout.execution.ok]
        again = lanes.execute([(rollout.code, rollout.example) for rollout in reversed(ran)])
        bar.advance(len(targets))
    for rollout in first:
        if rollout.refusal:
            yield Doubt(rollout.example, "refused", rollout.refusal)
        elif not rollout.execution.ok:
            yield Doubt(rollout.example, "fails", rollout.execution.message or "a limit cut its rows off")
        elif rollout.metrics.get(run.evaluation.right_by, 1.0) < 1:
            detail = f"{rollout.example.answer!r} against {_shown(rollout.execution)}"
            yield Doubt(rollout.example, "contradicted", detail)
    for rollout, second in zip(reversed(ran), again, strict=True):
        if not rollout.execution.repeatable or _rows(rollout.execution) != _rows(second):
            detail = f"{_shown(rollout.execution)}, then {_shown(second)}"
            yield Doubt(rollout.example, "unstable", detail)


def _rows(execution: Execution) -> list[str]:
    """Return the rows in an order of their own: without ORDER BY an engine may give them in any."""
    return sorted(map(repr, execution.rows))


def _shown(execution: Execution) -> str:
    rows = ", ".join(" ".join(map(str, row)) for row in execution.rows[:SHOWN_ROWS])
    return repr(rows + (", ..." if len(execution.rows) > SHOWN_ROWS else ""))


def _out_of_reach(run: Run, examples: Sequence[Example]) -> Iterator[Doubt]:
    """Yield the answers that no query gives unless it writes them itself; a known good completion tells more."""
    vocabularies = {database.name: Vocabulary(database) for database in run.databases()}
    for example in examples:
        vocabulary = vocabularies.get(example.database)
        if vocabulary is None or example.metadata.get("target"):
            continue
        reasons = {part: _out_of_reach_for(vocabulary, part) for part in parts_of(example.answer)}
        for reason in ("free text", "cut", IN_REACH):
            if found := [part for part in reasons if reasons[part] == reason]:
                yield Doubt(example, reason, repr(found[0]))
                break


def _out_of_reach_for(vocabulary: Vocabulary, part: str) -> str:
    if vocabulary.spells(part):
        return ""
    return "cut" if vocabulary.cuts(part) else IN_REACH if vocabulary.glues(part) else "free text"
