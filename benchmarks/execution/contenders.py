"""Grade the same samples in codegym's way, in the public rewards' and in a plain loop, and say how many a second."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from rich.console import Console

from codegym.grading import Grader
from codegym.lanes import Lanes
from codegym.report import Display
from codegym.roles import Guard
from codegym.run import open_lanes
from codegym.settings import Run
from codegym_rems.answers import compare
from execution.engines import Engine
from execution.work import Sample

SILENT = Display(Console(quiet=True))
_FENCE = re.compile(r"```(?:sql)?\s*(.*?)```", re.DOTALL)


def codegym_rate(run: Run, samples: Sequence[Sample], guards: Mapping[str, Guard], seconds: float, batch: int) -> float:
    """Return rollouts a second of codegym's own path, all caches cold at the start of each pass over the samples.

    Backends are opened and asked once before the clock starts. Passes follow one another until the seconds are over.
    """
    spent, done = 0.0, 0
    while spent < seconds:
        forget()
        with open_lanes(run, SILENT) as lanes:
            spent += pass_seconds(Grader(lanes, guards, run.rewards), samples, batch)
        done += len(samples)
    return done / spent


def forget() -> None:
    """Empty whatever codegym and its plugins keep of texts that they have seen."""
    for name, module in list(sys.modules.items()):
        for kept in list(vars(module).values()) if name.startswith("codegym") else ():
            if hasattr(kept, "cache_clear"):
                kept.cache_clear()


def pass_seconds(grader: Grader, samples: Sequence[Sample], batch: int) -> float:
    """Return the seconds of grading all samples once in batches, after one question to wake every lane."""
    warm_up(grader.lanes, samples)
    return graded_seconds(grader, samples, batch)


def graded_seconds(grader: Grader, samples: Sequence[Sample], batch: int) -> float:
    """Return the seconds of grading all samples once in batches."""
    began = time.perf_counter()
    for start in range(0, len(samples), batch):
        some = samples[start : start + batch]
        grader.grade([sample.example for sample in some], [sample.completion for sample in some])
    return time.perf_counter() - began


def warm_up(lanes: Lanes, samples: Sequence[Sample]) -> None:
    """Have every lane connected to every database."""
    one_each = {sample.example.database: sample.example for sample in samples}
    lanes.execute([(f"SELECT {number}", example) for example in one_each.values() for number in range(256)])


def public_rate(engine: Engine, samples: Sequence[Sample], seconds: float) -> float:
    """Return rollouts a second of the public rewards: for each sample connect, execute, and the same for its gold.

    On the release's schema, and with the comparison of frozensets that most of them make.
    """
    began, done, right = time.perf_counter(), 0, 0
    for sample in cycle(samples):
        predicted = _rows(engine, sample.code, sample.example.database)
        gold = _rows(engine, sample.gold, sample.example.database)
        right += predicted is not None and gold is not None and frozenset(predicted) == frozenset(gold)
        done += 1
        if time.perf_counter() - began > seconds:
            break
    return done / (time.perf_counter() - began)


def _rows(engine: Engine, code: str, database: str) -> Sequence[Any] | None:
    connection = engine.connect(database, indexes=False)
    try:
        cursor = connection.cursor()
        cursor.execute(code)
        return list(cursor.fetchall())
    except (*engine.errors, ValueError):
        return None
    finally:
        connection.close()


def loop_rate(engine: Engine, samples: Sequence[Sample], seconds: float, batch: int) -> float:
    """Return rollouts a second of a plain TRL reward function over one connection for each database, with indexes."""
    connections = {name: engine.connect(name) for name in {sample.example.database for sample in samples}}

    def reward(completions: Sequence[str], answers: Sequence[str], databases: Sequence[str]) -> list[float]:
        rewards = []
        for completion, answer, database in zip(completions, answers, databases, strict=True):
            fenced = _FENCE.search(completion)
            cursor = connections[database].cursor()
            try:
                cursor.execute(fenced.group(1) if fenced else completion)
                found = compare(answer, cursor.fetchall())
                rewards.append(1.0 + 100 * found.f1 + 1000 * found.exact)
            except (*engine.errors, ValueError):
                rewards.append(-100.0)
            finally:
                cursor.close()
        return rewards

    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for start in range(0, len(samples), batch):
            some = samples[start : start + batch]
            reward(
                [sample.completion for sample in some],
                [sample.example.answer for sample in some],
                [sample.example.database for sample in some],
            )
        done += len(samples)
    elapsed = time.perf_counter() - began
    for connection in connections.values():
        connection.close()
    return done / elapsed
