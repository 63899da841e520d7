"""Judge a run's stored answers by every comparator that its rewards know, and find where two of them disagree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

from codegym.errors import ConfigError
from codegym.plugins import blaming, nearest
from codegym.report import Disagreement, Disagreements, Display, stored
from codegym.rescore import Earlier, split_of
from codegym.run import excluded, load_examples
from codegym.settings import Run
from codegym.types import Rollout


def disagreements(run: Run, display: Display, path: Path, splits: Sequence[str]) -> Disagreements:
    """Return what the comparators of the rewards of `run` say of the answers in the folder of a run.

    Only answers of `splits` count, if any is named, and only those that were stored whole. Raises `ConfigError` if
    `path` is no run or has no rollouts of a split, or if no reward of `run` knows a comparator.
    """
    files = {file: split_of(file) for file in Earlier.read(path).files}
    there = list(dict.fromkeys(files.values()))
    if strange := [split for split in splits if split not in there]:
        raise ConfigError(f"--split {strange[0]}: {path} has no rollouts of it{nearest(strange[0], there)}")
    files = {file: split for file, split in files.items() if split in (splits or there)}
    examples = load_examples(run, list(dict.fromkeys(files.values())))
    right: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    firsts: dict[tuple[str, str], Rollout] = {}
    n = left_out = 0
    for file, split in files.items():
        read = stored(file, examples[split], excluded(run))
        with display.phase(f"compare {file.stem}", len(read), "rollouts") as bar:
            for each in read:
                bar.advance(1)
                left_out += not each.complete and each.rollout.execution.ok
                judged = _judged(run, each.rollout) if each.complete else {}
                n += bool(judged)
                right.update({name: int(verdict) for name, verdict in judged.items()})
                for yes, no in permutations(judged, 2):
                    if judged[yes] and not judged[no]:
                        pairs[yes, no] += 1
                        firsts.setdefault((yes, no), each.rollout)
    if not n:
        raise ConfigError(
            f"{path}: no answer that a comparator judges: the run needs a reward that knows some, such as "
            "[rewards.rems], and answers that were stored whole"
        )
    found = {pair: Disagreement(count, firsts[pair]) for pair, count in pairs.most_common()}
    return Disagreements(n, left_out, right, found)


def _judged(run: Run, rollout: Rollout) -> dict[str, bool]:
    """Return what every comparator of every reward says; where two have one name, the first reward's."""
    judged: dict[str, bool] = {}
    for weighted in run.rewards:
        with blaming(f'reward "{weighted.label}"'):
            for name, right in weighted.reward.comparisons(rollout).items():
                judged.setdefault(name, right)
    return judged
