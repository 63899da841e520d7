"""Turn completions into rewards: extract, guard, execute, score. The only path from completion to number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter

from codegym.errors import PluginError
from codegym.extract import extract
from codegym.lanes import Lanes
from codegym.perturbing import REASONS, Perturber, figures
from codegym.plugins import blaming
from codegym.roles import Guard
from codegym.settings import WeightedReward
from codegym.types import NOT_RUN, Example, Execution, Rollout

NO_CODE = "there is no code in the completion"


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
        self._blamed = {reward.label: f'reward "{reward.label}"' for reward in rewards}

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
        codes = [extract(completion) for completion in completions]
        refusals = [self.refusal(code, example) for code, example in zip(codes, examples, strict=True)]
        attempts = list(zip(examples, completions, codes, refusals, strict=True))
        # All of it first: scoring what is there while the lanes go on would only take their turns at the interpreter.
        executions = iter(
            self.lanes.execute([(code, example) for example, _, code, refusal in attempts if not refusal])
        )
        scored = [self.score(*attempt, NOT_RUN if attempt[-1] else next(executions)) for attempt in attempts]
        return self.examined(scored)

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
        for weighted in self.rewards:
            with blaming(f'reward "{weighted.label}"'):
                explained = weighted.reward.explain(rollout) if weighted.weight else {}
            reasons |= {_part_label(weighted.label, part): reason for part, reason in explained.items()}
        if self.lanes.perturber and rollout.scores.get("perturbation"):
            verdict = next(name for name in REASONS if rollout.metrics[f"{name}_rate"])
            reasons["perturbation"] = self.lanes.perturber.reason(verdict, rollout.example)
        return reasons

    def refusal(self, code: str, example: Example) -> str:
        """Return why the code is not to be run, with the guard's label; empty if nothing speaks against it."""
        if not code:
            return NO_CODE
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
        for weighted in self.rewards:
            who = self._blamed[weighted.label]
            with blaming(who):
                score = weighted.reward.score(rollout) if weighted.weight else {}
                measured = dict(weighted.reward.metrics(rollout))
            parts = score if isinstance(score, dict | Mapping) else {"": score}  # the quick test first
            for name, value in parts.items():
                scores[_part_label(weighted.label, name)] = weighted.weight * _number(value, who, example)
            for name, value in measured.items():
                # A second reward that measures the same thing (the paper's beside ours) keeps its label in the name.
                label = f"{weighted.label}.{name}" if name in metrics else name
                metrics[label] = _number(value, who, example)
        self.lanes.counters.phases["score"].add(perf_counter() - started)
        # Nobody else has it yet, and making a second one costs a tenth of the grading.
        vars(rollout).update(scores=scores, metrics=metrics, reward=math.fsum(scores.values()))
        return rollout


def _part_label(reward: str, part: str) -> str:
    return f"{reward}.{part}" if part else reward


def _number(value: object, who: str, example: Example) -> float:
    if type(value) is float and -math.inf < value < math.inf:  # the usual case, in half the time
        return value
    # Bools are numbers to Python, and `return rows == answer` is the natural way to write a reward.
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise PluginError(f"{who} returned {value!r} for example {example.id}: a score is a finite number")
    return float(value)
