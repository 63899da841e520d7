"""Give completions that are known beforehand: saved ones to score again, written ones for tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from codegym import ConfigError, Example, Finding, Policy, read_lines

SHOWN = 5


@dataclass
class Replay(Policy):
    """Saved completions, to be scored again: no model, no GPU.

    `file`: JSON lines, one `{"id": ..., "completion": ...}` each. Several lines of one id are several samples, used in
    order within one evaluation. The ids must be those of the run's examples, no more and no less.
    """

    file: Path

    def __post_init__(self) -> None:
        self._samples: dict[str, list[str]] = {}

    def findings(self) -> Iterable[Finding]:
        """Yield an error if the file cannot be read as what it should be."""
        try:
            read_completions(self.file)
        except ConfigError as error:
            yield from (Finding("error", problem.removeprefix("policy replay: ")) for problem in error.problems)

    def prepare(self, examples: Sequence[Example]) -> None:
        """Raise `ConfigError` if the ids of the file and of the examples differ."""
        asked = Counter(example.id for example in examples)
        problems = self._lacking(asked)
        if unknown := [name for name in self._read() if name not in asked]:
            problems.append(f"policy replay: {self.file} has {_listed(unknown)} that no example of this run has")
        if problems:
            raise ConfigError(problems)

    def generate(self, examples: Sequence[Example]) -> list[str]:
        """Return the saved completions; the second time that an example comes in one call, its second one."""
        if problems := self._lacking(Counter(example.id for example in examples)):
            raise ConfigError(problems)
        samples = {example.id: iter(self._read()[example.id]) for example in examples}
        return [next(samples[example.id]) for example in examples]

    def _lacking(self, asked: Mapping[str, int]) -> list[str]:
        samples = self._read()
        problems = []
        if missing := [name for name in asked if name not in samples]:
            problems.append(f"policy replay: {self.file} has no completion for {_listed(missing)}")
        short = [name for name, times in asked.items() if name in samples and len(samples[name]) < times]
        if short:
            problems.append(
                f"policy replay: {self.file} has too few samples for {_listed(short)}; {short[0]} has "
                f"{len(samples[short[0]])} of {asked[short[0]]}"
            )
        return problems

    def _read(self) -> dict[str, list[str]]:
        if not self._samples:
            self._samples = read_completions(self.file)
        return self._samples


def read_completions(file: Path) -> dict[str, list[str]]:
    """Return the completions of a JSON-lines file by id, in the file's order; `ConfigError` names every bad line."""
    try:
        records = read_lines(file, texts=("id", "completion"))
    except ConfigError as error:
        raise ConfigError([f"policy replay: {problem}" for problem in error.problems]) from error
    samples: dict[str, list[str]] = {}
    for record in records:
        samples.setdefault(record["id"], []).append(record["completion"])
    if not samples:
        raise ConfigError(f"policy replay: {file} holds no completion")
    return samples


@dataclass
class Scripted(Policy):
    """Completions written into the run file, for tests and for trying out rewards.

    `completions`: a list, given out in turn and from the start again, or a table of one completion for each example id.
    """

    completions: tuple[str, ...] | dict[str, str]

    def __post_init__(self) -> None:
        self._given = 0

    def prepare(self, examples: Sequence[Example]) -> None:
        """Raise `ConfigError` if an example would get no completion."""
        if not self.completions:
            raise ConfigError("policy scripted: completions is empty; write at least one")
        if isinstance(self.completions, dict):
            missing = list(dict.fromkeys(example.id for example in examples if example.id not in self.completions))
            if missing:
                raise ConfigError(f"policy scripted: completions has none for {_listed(missing)}")

    def generate(self, examples: Sequence[Example]) -> list[str]:
        """Return the next completion for each example, or the one of its id."""
        self.prepare(examples)
        if isinstance(self.completions, dict):
            return [self.completions[example.id] for example in examples]
        start, self._given = self._given, self._given + len(examples)
        return [self.completions[index % len(self.completions)] for index in range(start, self._given)]


def _listed(names: Sequence[str]) -> str:
    """Return how many ids there are and the first few of them."""
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} id{'s' if len(names) > 1 else ''} ({', '.join(names[:SHOWN])}{more})"
