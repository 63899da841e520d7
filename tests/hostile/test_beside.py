"""Run hostile and honest code at once from eight lanes: the honest answers are right."""

from __future__ import annotations

from collections import Counter

import pytest
from residue import new_backend

from codegym import Example
from codegym.lanes import Lanes
from codegym.testing import Item, corpus, games
from codegym.testing.examining import word_of

LANES, HOSTILE, HONEST = 8, 20, 400
WORST = ("runaway", "bomb", "session", "write")


def hostile_items(engine: str) -> list[Item]:
    """Twenty of the engine's own items and of those for all, the worst classes first."""
    worst = [item for item in reversed(corpus(engine)) if item.kind in WORST]
    return sorted(worst, key=lambda item: WORST.index(item.kind))[:HOSTILE]


@pytest.mark.parametrize("engine", ["sqlite", "mariadb", "duckdb", "postgres"])
def test_honest_queries_are_right_beside_twenty_hostile_ones(engine: str) -> None:
    new_backend(engine)  # skips, where it is not installed
    medals = Counter(row[1] for row in games().tables["medal"])
    honest = [f"SELECT COUNT(*) FROM medal WHERE athlete_id = {athlete}" for athlete in range(1, HONEST + 1)]
    items = hostile_items(engine)
    # The hostile ones evenly among the honest, so that every lane meets some.
    codes = list(honest)
    for place, item in enumerate(items):
        codes.insert(place * (HONEST // HOSTILE + 1), item.text)
    example = Example("hostile/0", "", "", "games")
    with Lanes(lambda: new_backend(engine), [games()], LANES, attempts=3) as lanes:
        executions = dict(zip(codes, lanes.execute([(code, example) for code in codes]), strict=True))
    wrong = [code for athlete, code in enumerate(honest, 1) if executions[code].rows != ((medals[athlete],),)]
    assert wrong == [], [executions[code] for code in wrong[:3]]
    strange = {item.name: word_of(executions[item.text]) for item in items}
    assert {
        name: word for (name, word), item in zip(strange.items(), items, strict=True) if word not in item.expect
    } == {}
