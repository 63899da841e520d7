"""Measure how often samples of the policy solve each question, and write it down as a profile."""

from __future__ import annotations

import os
import shlex
import zlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from codegym.curriculum import Measured, content, model_of, read_profile
from codegym.errors import BackendError, ConfigError, Interrupted
from codegym.grading import Grader
from codegym.plugins import nearest
from codegym.processes import processes
from codegym.report import Display, JsonLines
from codegym.run import load_examples, open_lanes, stop_on_errors
from codegym.settings import Run
from codegym.types import Example, Rollout


@dataclass(frozen=True)
class Plan:
    """What is measured: `samples` of each question of a split, by a metric that is 1 for a question solved."""

    samples: int
    split: str
    metric: str
    out: Path

    @classmethod
    def of(cls, run: Run, samples: int, split: str | None, metric: str | None, out: Path | None) -> Plan:
        """Return the plan with what is None filled in, by the run's settings."""
        solved = metric or run.evaluation.right_by
        return cls(samples, split or run.training.split, solved, out or Path(f"{run.name}.profile.jsonl"))


def profile(run: Run, display: Display, plan: Plan, command: Sequence[str]) -> list[Measured]:
    """Return how each question of the split fared, and write it into the plan's file as soon as it is known.

    A file that was begun with the same plan is gone on with. Raises `Interrupted` on Ctrl-C, saying how far it came.
    """
    if processes() > 1:
        raise ConfigError("a profile is made by one process; start it without torchrun: codegym profile FILE")
    stop_on_errors(run)
    known = run.dataset.splits()
    if known and plan.split not in known:
        raise ConfigError(f"--split {plan.split}: there is no such split{nearest(plan.split, known)}")
    limit = run.training.limit if plan.split == run.training.split else run.evaluation.limit
    examples = load_examples(run, [plan.split])[plan.split][: limit or None]
    done = _begun(run, plan, examples)
    if done:
        display.say(f"{plan.out} has {len(done)} of {len(examples)} questions already")
    try:
        if len(done) < len(examples):
            with run.blaming("policy"):
                run.policy.prepare([example for example in examples for _ in range(plan.samples)])
            for measured in _measured(run, display, plan, examples, done.keys()):
                done |= {each.id: each for each in measured}
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {_left(plan, len(done), len(examples), command)}") from None
    except BackendError as error:
        left = _left(plan, len(done), len(examples), command)
        raise BackendError(f"{error}\nthe machine failed, not the model; {left}") from error
    finally:
        run.policy.close()
    return [done[example.id] for example in examples]


def _left(plan: Plan, done: int, total: int, command: Sequence[str]) -> str:
    again = shlex.join(["codegym", *command[1:]])
    return f"{done} of {total} questions are in {plan.out}; to go on: {again}"


def _begun(run: Run, plan: Plan, examples: Sequence[Example]) -> dict[str, Measured]:
    """Return what the file holds already, a torn last line cut off; raise `ConfigError` if it is of another plan."""
    if not plan.out.exists():
        return {}
    done = read_profile(plan.out)
    expected = {example.id: (content(example), model_of(run), plan.metric, plan.samples) for example in examples}
    for each in done.values():
        if expected.get(each.id) != (each.content, each.model, each.metric, each.samples):
            raise ConfigError(
                f"--out {plan.out}: {each.id} in it is of another profile ({each.samples} samples of {each.model}, by "
                f"{each.metric}), or of other questions; name a new file"
            )
    whole = plan.out.read_bytes().rfind(b"\n") + 1
    os.truncate(plan.out, whole)
    return done


def _measured(
    run: Run, display: Display, plan: Plan, examples: Sequence[Example], done: Container[str]
) -> Iterator[list[Measured]]:
    """Sample and grade the questions batch by batch, and yield what is new in the file of each.

    A batch and its seed do not depend on what is done, so a profile that is gone on with is the same as one in one go.
    """
    size = max(1, run.evaluation.batch_size // plan.samples)
    batches = [examples[start : start + size] for start in range(0, len(examples), size)]
    batches = [batch for batch in batches if any(example.id not in done for example in batch)]
    with open_lanes(run, display) as lanes:
        grader = Grader(lanes, run.guards, run.rewards)
        _check_metric(plan, grader.grade(examples[:1], [""])[0])
        with (
            JsonLines(plan.out) as lines,
            display.phase(f"profile {plan.split}", sum(map(len, batches)) * plan.samples, "rollouts") as bar,
        ):
            for batch in batches:
                groups = _sampled(run, display, plan, batch, grader)
                new = [group for group in groups if group[0].example.id not in done]
                measured = [_fared(group, model_of(run), plan.metric) for group in new]
                lines.write(asdict(each) for each in measured)
                bar.advance(len(batch) * plan.samples)
                yield measured


def _sampled(
    run: Run, display: Display, plan: Plan, batch: Sequence[Example], grader: Grader
) -> Iterator[list[Rollout]]:
    """Yield the graded samples of each question."""
    repeated = [example for example in batch for _ in range(plan.samples)]
    with run.blaming("policy"):
        completions = run.policy.sample(repeated, zlib.crc32(f"{run.seed} {batch[0].id}".encode()))
    with display.phase("execute", len(repeated), "rollouts") as bar:
        rollouts = grader.grade(repeated, completions)
        bar.advance(len(repeated))
    return (rollouts[start : start + plan.samples] for start in range(0, len(repeated), plan.samples))


def _check_metric(plan: Plan, rollout: Rollout) -> None:
    """Raise `ConfigError` unless the rewards measure the metric and 1 is good."""
    good = [name for name in rollout.metrics if not name.endswith("_rate")]
    if plan.metric not in good:
        raise ConfigError(
            f"--metric {plan.metric}: is none that tells a question solved{nearest(plan.metric, good)}; "
            f"there are {', '.join(good) or 'none: add a reward that measures one, such as [rewards.rems]'}"
        )


def _fared(rollouts: Sequence[Rollout], model: str, metric: str) -> Measured:
    """Return how the samples of one question fared."""
    count, example = len(rollouts), rollouts[0].example
    return Measured(
        id=example.id,
        content=content(example),
        kind=example.metadata.get("kind", ""),
        model=model,
        metric=metric,
        samples=count,
        pass_rate=sum(rollout.metrics.get(metric, 0.0) >= 1 for rollout in rollouts) / count,
        reward=sum(rollout.reward for rollout in rollouts) / count,
        error_rate=sum(not rollout.execution.ok for rollout in rollouts) / count,
        distinct_completions=len({rollout.completion for rollout in rollouts}),
        distinct_answers=len({repr(rollout.execution.rows) for rollout in rollouts if rollout.execution.ok}),
    )
