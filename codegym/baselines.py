"""Find out what no model at all would score: the best constant answer, a dump of likely ones, the commonest known."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from codegym.errors import PluginError
from codegym.grading import Grader
from codegym.report import summarise, worth
from codegym.types import Example, Execution, Rollout, Row

DUMP = ("Yes", "No", *map(str, range(2031)))
"""What the constant dump answers to every question: both decisions, every small number, every year up to 2030."""

SCREENED = 64
FINALISTS = 8
"""Constants are screened on so many examples; so many of the best, and so many of the commonest, are tried on all."""

Summary = dict[str, Any]
Rows = tuple[Row, ...]


def baselines(
    grader: Grader, examples: Sequence[Example], training: Sequence[Example], metric: str
) -> dict[str, Summary]:
    """Return the summaries of three sets of rollouts that no model made, by name; nothing is executed.

    `best_constant` is the best of the examples' own answers by `metric`, which nobody could know without them;
    `constant_dump` is `DUMP`; `commonest_in_training` is the commonest answer of `training`, if there is any. An answer
    is given as one cell, as rows of its parts between commas or, if it is rows in JSON, as these, whichever is better.
    Raises `PluginError` where a reward fails on an answer without code.
    """
    some = examples[:: -(-len(examples) // SCREENED)]

    def best_form(forms: Iterable[Rows]) -> tuple[Rows, tuple[float, float]]:
        """Return the form that scores best on some of the examples, and its mean score and reward there."""
        scores = {rows: _scores(_graded(grader, some, rows), metric) for rows in forms}
        return max(scores.items(), key=lambda scored: scored[1])

    answers = Counter(example.answer.strip() for example in examples)
    promising = {answer: best_form(_forms(answer)) for answer in answers}
    by_promise = sorted(answers, key=lambda answer: promising[answer][1], reverse=True)
    commonest = [answer for answer, _ in answers.most_common(FINALISTS)]
    tried = {
        answer: _graded(grader, examples, promising[answer][0])
        for answer in dict.fromkeys([*by_promise[:FINALISTS], *commonest])
    }
    best = max(tried, key=lambda answer: _scores(tried[answer], metric))
    dump, _ = best_form([((" ".join(DUMP),),), _column(DUMP)])
    found = {
        "best_constant": {"answer": best} | _summary(tried[best]),
        "constant_dump": _summary(_graded(grader, examples, dump)),
    }
    if known := Counter(example.answer.strip() for example in training):
        [(answer, _)] = known.most_common(1)
        rows, _ = best_form(_forms(answer))
        found["commonest_in_training"] = {"answer": answer} | _summary(_graded(grader, examples, rows))
    return found


def full_marks(grader: Grader, examples: Sequence[Example]) -> float:
    """Return the mean reward of the examples' own answers: what a model could earn that knew them.

    0 if that is unknown, for a reward fails on an answer without code.
    """
    try:
        rewards = [
            max(each.reward for rows in _forms(example.answer.strip()) for each in _graded(grader, [example], rows))
            for example in examples
        ]
    except PluginError:
        return 0.0
    return sum(rewards) / len(rewards)


def _graded(grader: Grader, examples: Sequence[Example], rows: Rows) -> list[Rollout]:
    """Return the rollouts of a query that gives these rows for every example; there is no code."""
    return [grader.score(example, "", "", "", Execution(("answer",), rows)) for example in examples]


def _scores(rollouts: Sequence[Rollout], metric: str) -> tuple[float, float]:
    """Return the mean of the metric and, to choose between equals, of the reward.

    Less than a tenth of a point chooses nothing: one cell is compared in a fraction of the time of 2,033 rows.
    """
    count = len(rollouts)
    score = sum(worth(metric, rollout.metrics, rollout.reward) for rollout in rollouts)
    return score / count, round(sum(rollout.reward for rollout in rollouts) / count, 1)


def _forms(answer: str) -> list[Rows]:
    """Return the rows that say an answer: one cell, a row for each part, and the rows that it is the JSON of."""
    forms: list[Rows] = [((answer,),)]
    if "," in answer:
        forms.append(_column([part.strip() for part in answer.split(",")]))
    if answer.startswith("[["):
        with suppress(ValueError, TypeError):
            rows = tuple(tuple(row) for row in json.loads(answer))
            hash(rows)  # a list or an object is no cell
            forms.append(rows)
    return forms


def _column(values: Sequence[str]) -> Rows:
    return tuple((value,) for value in values)


def _summary(rollouts: Sequence[Rollout]) -> Summary:
    """Return the means of what tells of answers; rates tell of code, and there was none."""
    return {name: value for name, value in summarise(rollouts).items() if "_rate" not in name}
