"""Turn completions into rewards: extract, guard, execute, score. The only path from completion to number."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import fsum, isfinite
from time import perf_counter

from codegym.cache import Cache, rollout_bytes
from codegym.errors import PluginError
from codegym.extract import extract
from codegym.lanes import Lanes
from codegym.perturbing import REASONS, Perturber, figures
from codegym.plugins import blaming
from codegym.roles import Guard
from codegym.settings import WeightedReward
from codegym.types import NOT_RUN, Example, Execution, Rollout

NO_CODE = "there is no code in the completion"
OBJECTS_A_COLLECTION = 100_000
"""How many new objects make Python look for garbage while a batch is graded; 700 are usual."""


class Grader:
    """Grades completions with the guards and rewards of a run, executing on its lanes.

    Training, evaluation and re-scoring all use it, so they cannot drift apart.
    """

    def __init__(self, lanes: Lanes, guards: Mapping[str, Guard], rewards: Sequence[WeightedReward]) -> None:
        self.lanes = lanes
        self.guards = guards
        self.rewards = rewards
        for label, guard in guards.items():
            with blaming(f'guard "{label}"'):
                guard.prepare(lanes.databases)
        self._deterministic = all(each.deterministic for each in guards.values()) and all(
            each.reward.deterministic for each in rewards
        )
        self._kept: Cache[tuple[int, str], Rollout] = Cache(lanes.cache_size, rollout_bytes)
        self._weighted = [(each, _Labels(each.label), f'reward "{each.label}"') for each in rewards]

    def grade(self, examples: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
        """Return one rollout for each completion, in order.

        Raises `BackendError` when the machine fails for good and `PluginError` when a guard or reward breaks its
        promise; the fault of a completion is in its rollout.
        """
        if len(examples) != len(completions):
            raise PluginError(f"the policy gave {len(completions)} completions for {len(examples)} examples")
        for example, completion in zip(examples, completions, strict=True):
            if not isinstance(completion, str):
                raise PluginError(f"the policy gave {completion!r} for example {example.id}, not a text")
        # Answers that are given may be others next time.
        graded = self._graded_once if self._deterministic and not self.lanes.knows else self._graded
        with _rare_collection():
            return self.examined(graded(list(zip(examples, completions, strict=True))))

    def _graded_once(self, attempts: Sequence[tuple[Example, str]]) -> list[Rollout]:
        """Return the rollouts of (example, completion) pairs; pairs that are the same share theirs."""
        # A rollout that is kept keeps its example, so that no other can have its number.
        keys = [(id(example), completion) for example, completion in attempts]
        rollouts = {key: rollout for key in keys if (rollout := self._kept.get(key))}
        known = list(rollouts.values())
        fresh = {key: attempt for key, attempt in zip(keys, attempts, strict=True) if key not in rollouts}
        for key, rollout in zip(fresh, self._graded(list(fresh.values())), strict=True):
            rollouts[key] = rollout
            if rollout.execution.repeatable:
                self._kept.keep(key, rollout)
        graded = [rollouts[key] for key in keys]
        self.lanes.counters.spared(
            hits=sum(not rollout.refusal for rollout in known),
            repeats=sum(not rollout.refusal for rollout in graded)
            - sum(not each.refusal for each in rollouts.values()),
        )
        return graded

    def _graded(self, attempts: Sequence[tuple[Example, str]]) -> list[Rollout]:
        codes = [extract(completion) for _, completion in attempts]
        refusals = [self.refusal(code, example) for code, (example, _) in zip(codes, attempts, strict=True)]
        checked = list(zip(attempts, codes, refusals, strict=True))
        # All of it first: scoring what is there while the lanes go on would only take their turns at the interpreter.
        requests = [(code, example) for (example, _), code, refusal in checked if not refusal]
        executions = iter(self.lanes.execute(requests))
        return [
            self.score(*attempt, code, refusal, NOT_RUN if refusal else next(executions))
            for attempt, code, refusal in checked
        ]

    def examined(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Return scored rollouts as `[perturbation]` of the run file has them, the same ones where it is off."""
        perturber = self.lanes.perturber
        if perturber is None:
            return list(rollouts)
        verdicts = perturber.judge(rollouts, self.lanes.execute)
        return [self._sentenced(*pair, perturber) for pair in zip(rollouts, verdicts, strict=True)]

    def _sentenced(self, rollout: Rollout, verdict: str, perturber: Perturber) -> Rollout:
        """Return the rollout with the verdict on it among its metrics and, if it is not fine, what follows from it."""
        use, reason = perturber.settings.use, perturber.reason(verdict, rollout.example)
        if use == "guard" and reason:
            refusal = f"perturbation: {reason}"
            rollout = self.score(rollout.example, rollout.completion, rollout.code, refusal, NOT_RUN)
        scores, reward = rollout.scores, rollout.reward
        if use == "reward":
            points = -perturber.settings.penalty if reason else 0.0
            scores, reward = {**scores, "perturbation": points}, reward + points
        metrics = {**rollout.metrics, **figures(verdict)}
        return replace(rollout, scores=scores, metrics=metrics, reward=reward)

    def reasons(self, rollout: Rollout) -> dict[str, str]:
        """Return why each part of the rollout's reward is what it is, as far as the rewards tell."""
        reasons: dict[str, str] = {}
        for weighted, labels, who in self._weighted:
            with blaming(who):
                explained = weighted.reward.explain(rollout) if weighted.weight else {}
            reasons |= {labels[part]: reason for part, reason in explained.items()}
        if self.lanes.perturber and rollout.scores.get("perturbation"):
            verdict = next(name for name in REASONS if rollout.metrics[f"{name}_rate"])
            reasons["perturbation"] = self.lanes.perturber.reason(verdict, rollout.example)
        return reasons

    def refusal(self, code: str, example: Example) -> str:
        """Return why the code is not to be run, with the guard's label; empty if nothing speaks against it."""
        if not code:
            return NO_CODE
        if not self.guards:
            return ""
        started = perf_counter()
        refusal = ""
        for label, guard in self.guards.items():
            with blaming(f'guard "{label}"'):
                reason = guard.check(code, example)
            if reason:
                refusal = f"{label}: {reason}"
                break
        self.lanes.counters.phases["guard"].add(perf_counter() - started)
        return refusal

    def score(self, example: Example, completion: str, code: str, refusal: str, execution: Execution) -> Rollout:
        """Return the rollout of an attempt whose execution is known."""
        started = perf_counter()
        scores: dict[str, float] = {}
        metrics = {"error_rate": float(not execution.ok), "refusal_rate": float(bool(refusal))}
        rollout = Rollout(example, completion, code, refusal, execution)
        for weighted, labels, who in self._weighted:
            with blaming(who):
                score = weighted.reward.score(rollout) if weighted.weight else {}
                measured = dict(weighted.reward.metrics(rollout))
            parts = score if isinstance(score, dict | Mapping) else {"": score}  # the quick test first
            for name, value in parts.items():
                scores[labels[name]] = weighted.weight * _number(value, who, example)
            for name, value in measured.items():
                if type(value) is not float or not isfinite(value):  # the quick test, which most pass
                    value = _number(value, who, example)
                # A second reward that measures the same thing (the paper's beside ours) keeps its label in the name.
                metrics[labels[name] if name in metrics else name] = value
        self.lanes.counters.phases["score"].add(perf_counter() - started)
        # Nobody else has it yet, and making a second one costs a tenth of the grading.
        vars(rollout).update(scores=scores, metrics=metrics, reward=fsum(scores.values()))
        return rollout


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Look for garbage rarely: Python looks again and again at thousands of new objects that are all in use.

    Not never: each parse of a query is a tree whose branches know their stem, which nothing else frees.
    """
    usual = gc.get_threshold()
    try:
        if 0 < usual[0] < OBJECTS_A_COLLECTION:
            gc.set_threshold(OBJECTS_A_COLLECTION, *usual[1:])
        yield
    finally:
        gc.set_threshold(*usual)


class _Labels(dict[str, str]):
    """The labels of a reward's parts, by their names; each is put together once."""

    def __init__(self, reward: str) -> None:
        self._reward = reward

    def __missing__(self, part: str) -> str:
        label = self[part] = f"{self._reward}.{part}" if part else self._reward
        return label


def _number(value: object, who: str, example: Example) -> float:
    # Bools are numbers to Python, and `return rows == answer` is the natural way to write a reward.
    if not isinstance(value, int | float) or not isfinite(value):
        raise PluginError(f"{who} returned {value!r} for example {example.id}: a score is a finite number")
    return float(value)
