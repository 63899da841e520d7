"""Compare rows with a reference answer as a comparator says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import get_args

from codegym import Example, Row
from codegym_rems.answers import NO_ANSWER, Comparison, compare, gold_parts, normal, overlap, predicted_parts
from codegym_rems.columns import same_table
from codegym_rems.comparators import Comparator, Preset
from codegym_rems.items import Item, Reference, json_rows, predicted, reference, text_rows
from codegym_rems.release import release_comparison, release_parts, release_text

BOTH_EMPTY = Comparison(exact=True, recall=1.0, f1=1.0)


class Strict:
    """Compares as codegym does by default."""

    def compare(self, example: Example, rows: Sequence[Row]) -> Comparison:
        """Return how the rows agree with the example's reference."""
        return compare(example.answer, rows)

    def wanted(self, example: Example) -> Sequence[Item]:
        """Return the items of the example's reference."""
        return gold_parts(example.answer).parts

    def found(self, example: Example, rows: Sequence[Row]) -> Sequence[Item]:
        """Return the items of the rows."""
        return list(dict.fromkeys(map(normal, predicted_parts(rows))))


class ByScript(Strict):
    """Compares as a script of TEMPTABQA-C does."""

    def __init__(self, comparator: Comparator) -> None:
        self._rounded = comparator.preset == "release_rems"
        self._from_rows = comparator.reference == "rows"

    def _answer(self, example: Example) -> str:
        return release_text(json_rows(example.answer)) if self._from_rows else example.answer

    def compare(self, example: Example, rows: Sequence[Row]) -> Comparison:
        """Return how the rows, as the release writes them, agree with the reference text."""
        return release_comparison(self._answer(example), release_text(rows), rounded=self._rounded)

    def wanted(self, example: Example) -> Sequence[Item]:
        """Return the parts of the reference text, empty ones too."""
        return release_parts(self._answer(example))

    def found(self, example: Example, rows: Sequence[Row]) -> Sequence[Item]:
        """Return the parts of the rows' text, empty ones too."""
        return release_parts(release_text(rows))


class ByRules(Strict):
    """Compares by rules.

    `recall` is items of the reference found / items of the reference, `f1` its harmonic mean with items found / items
    of the result. Where columns are joined and rows a set, a part that stands inside another between spaces is found
    too, see `overlap`. Where columns may be permuted, recall and F1 let each row have an order of its own.
    """

    def __init__(self, comparator: Comparator) -> None:
        self._read = json_rows if comparator.reference == "rows" else text_rows
        rules = comparator.rules()
        self._rules = rules if comparator.reference == "rows" else rules._replace(values="text")
        self._reference: Callable[[str], Reference] = lru_cache(maxsize=1 << 16)(
            lambda answer: reference(self._rules, self._read(answer))
        )

    def compare(self, example: Example, rows: Sequence[Row]) -> Comparison:
        """Return how the rows agree with the example's reference."""
        rules, gold = self._rules, self._reference(example.answer)
        wanted, found = gold.items, predicted(rules, rows, gold)
        if not wanted or not found:
            return BOTH_EMPTY if rules.empty == "equal" and not wanted and not found else NO_ANSWER
        if rules.columns == "joined" and rules.rows == "set":
            return _parts(gold, found)
        ordered = rules.rows == "list" or (rules.rows == "as_target" and _is_ordered(example))
        if rules.columns == "permuted":
            tables = [[item for item in items if isinstance(item, tuple)] for items in (wanted, found)]  # all of them
            same = same_table(*tables, ordered=ordered)
            return _counted(same, *([frozenset(Counter(row).items()) for row in table] for table in tables))
        return _counted(wanted == found if ordered else Counter(wanted) == Counter(found), wanted, found)

    def wanted(self, example: Example) -> Sequence[Item]:
        """Return the items of the example's reference."""
        return self._reference(example.answer).items

    def found(self, example: Example, rows: Sequence[Row]) -> Sequence[Item]:
        """Return the items of the rows, what is near to a number of the reference as that number."""
        return predicted(self._rules, rows, self._reference(example.answer))


def comparing(comparator: Comparator) -> Strict:
    """Return what compares as the comparator says."""
    if comparator == Comparator():
        return Strict()
    return ByScript(comparator) if comparator.is_script else ByRules(comparator)


def every_preset(comparator: Comparator) -> dict[str, Strict]:
    """Return the comparator and all presets by name, for references of the same form."""
    presets = [Comparator(preset, comparator.reference) for preset in get_args(Preset)]
    return {each.name: comparing(each) for each in (comparator, *presets)}


def _is_ordered(example: Example) -> bool:
    """Return True if the known right query orders its rows, by the test that Spider's evaluation uses."""
    return "order by" in example.metadata.get("target", "").lower()


def _parts(gold: Reference, found: list[Item]) -> Comparison:
    """Return the comparison of distinct texts."""
    distinct = dict.fromkeys(map(str, found))
    wanted = [str(item) for item in gold.items]
    equal = {part: part for part in wanted if part in distinct}
    exact = len(equal) == len(wanted) == len(distinct)
    return Comparison(exact, *overlap(wanted, distinct, equal))


def _counted(same: bool, wanted: Sequence[Item], found: Sequence[Item]) -> Comparison:
    """Return the comparison of items that count as often as they come."""
    common = (Counter(wanted) & Counter(found)).total()
    return Comparison(same, common / len(wanted), 1.0 if same else 2 * common / (len(wanted) + len(found)))
