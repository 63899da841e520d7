"""Choose and order the questions to train on by how often samples of a policy solved them."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from codegym.errors import ConfigError
from codegym.jsonl import read_lines
from codegym.settings import Run, Share
from codegym.types import Example, Finding

SHOWN = 3


@dataclass(frozen=True)
class Measured:
    """How `samples` completions of one question fared: a line of a profile.

    `content` tells prompt, answer and database from others under the same id. `pass_rate` is the share of samples whose
    `metric` is 1, `reward` their mean reward, `error_rate` the share without an answer.
    """

    id: str
    content: str
    kind: str
    model: str
    metric: str
    samples: Annotated[int, Field(ge=1)]
    pass_rate: Share
    reward: float
    error_rate: Share
    distinct_completions: int
    distinct_answers: int


def content(example: Example) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of prompt, answer and database."""
    told = json.dumps([example.prompt, example.answer, example.database])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def model_of(run: Run) -> str:
    """Return what the run's policy answers with: its model, or the plugin's name where it has none."""
    policy = run.resolved["policy"]
    return str(policy.get("model", policy["plugin"]))


def read_profile(file: Path) -> dict[str, Measured]:
    """Return the lines of a profile by id; `ConfigError` names every line that is none, and ids that come twice."""
    adapter = TypeAdapter(Measured)
    profile: dict[str, Measured] = {}
    problems = []
    for record in read_lines(file, texts=("id",)):
        try:
            measured = adapter.validate_python(record)
        except ValidationError as error:
            [first, *_] = error.errors(include_url=False)
            problems.append(f"{file}, {record['id']}: {'.'.join(map(str, first['loc']))}: {first['msg']}")
            continue
        if measured.id in profile:
            problems.append(f"{file}, {measured.id}: comes twice; remove one of the lines")
        profile[measured.id] = measured
    if problems:
        raise ConfigError(problems)
    return profile


def arranged(run: Run, examples: Sequence[Example]) -> tuple[list[Example], list[Finding]]:
    """Return the examples to train on, chosen and ordered by the run's profile, and what is to be told of that.

    Questions of one pass rate are shuffled among each other. Raises `ConfigError` if the profile is not there, not of
    these examples, or leaves none of them.
    """
    settings = run.training
    if settings.profile is None or not examples:
        return list(examples), []
    where = f"{run.file}: [training] profile:"
    if not settings.profile.exists():
        raise ConfigError(f"{where} there is no {settings.profile}; make it: {_command(run, settings.profile)}")
    profile = read_profile(settings.profile)
    if problems := list(_mismatches(run, profile, examples)):
        raise ConfigError([f"{where} {problem}" for problem in problems])
    rates = {example.id: profile[example.id].pass_rate for example in examples}
    low, high = settings.min_pass_rate, settings.max_pass_rate
    chosen = [example for example in examples if low <= rates[example.id] <= high]
    if not chosen:
        raise ConfigError(
            f"{where} none of the {len(examples)} questions has a pass rate from {low:g} to {high:g}; "
            "lower min_pass_rate or raise max_pass_rate"
        )
    findings = [*_other_model(run, profile), Finding("note", _told(run, rates.values()))]
    if again := [example for example in chosen if 0 < rates[example.id] < settings.focus]:
        findings.append(Finding("note", f"{len(again)} questions with a pass rate below {settings.focus:g} come twice"))
    chosen += again
    if settings.order != "shuffled":
        random.Random(run.seed).shuffle(chosen)
        chosen.sort(key=lambda example: rates[example.id], reverse=settings.order == "easy_first")
    return chosen, findings


def _mismatches(run: Run, profile: Mapping[str, Measured], examples: Sequence[Example]) -> Iterator[str]:
    file = run.training.profile
    assert file is not None
    if missing := [example.id for example in examples if example.id not in profile]:
        yield (
            f"{file} tells nothing of {_listed(missing)} to be trained on: it was stopped, or is of another split, "
            f"limit or dataset. Go on with it, by the same --set as here: {_command(run, file)}"
        )
    others = [each.id for each in examples if each.id in profile and profile[each.id].content != content(each)]
    if others:
        anew = file.with_name(f"{file.stem}-2{file.suffix}")
        yield (
            f"{file} is of another dataset: prompt, answer or database of {_listed(others)} are others now. "
            f"Make a new one: {_command(run, anew)}"
        )


def _other_model(run: Run, profile: Mapping[str, Measured]) -> Iterator[Finding]:
    others = sorted({measured.model for measured in profile.values()} - {model_of(run)})
    if others:
        yield Finding(
            "warning",
            f"{run.training.profile} tells how often {others[0]} solved the questions, and {model_of(run)} is trained; "
            "make a profile of that one if the two differ much",
        )


def _told(run: Run, rates: Collection[float]) -> str:
    settings = run.training
    easier = sum(rate > settings.max_pass_rate for rate in rates)
    harder = sum(rate < settings.min_pass_rate for rate in rates)
    reasons = [
        *([f"{harder} with a pass rate below {settings.min_pass_rate:g}"] if harder else []),
        *([f"{easier} with one above {settings.max_pass_rate:g}"] if easier else []),
    ]
    never = sum(rate == 0 for rate in rates)
    left_out = f"left out {' and '.join(reasons)}, " if reasons else ""
    trained = f"{len(rates) - easier - harder} of {len(rates)} questions are trained on"
    return f"{settings.profile}: {left_out}{trained}; {never} were never solved by a sample"


def _command(run: Run, file: Path) -> str:
    return f"codegym profile {run.file} --split {run.training.split} --out {file}"


def _listed(names: Sequence[str]) -> str:
    """Return how many questions there are and the first few of them."""
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} question{'s' if len(names) > 1 else ''} ({', '.join(names[:SHOWN])}{more})"
