"""SQLite and MariaDB answer the same queries with the same parts, so a reward does not depend on the engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from codegym import Backend, Dataset, Example
from codegym_mariadb import Mariadb
from codegym_rems.answers import predicted_parts
from codegym_sqlite import Sqlite
from codegym_temptabqa.sample import TemptabqaSample

DATASET: Dataset = TemptabqaSample()


@pytest.fixture(scope="module")
def backends() -> Iterator[list[Backend]]:
    opened: list[Backend] = [Sqlite(), Mariadb()]
    for backend in opened:
        backend.open(DATASET.databases())
    yield opened
    for backend in opened:
        backend.close()


def answers(backends: list[Backend], code: str) -> list[list[str]]:
    example = Example("test/0", "", "", DATASET.databases()[0].name)
    executions = [backend.execute(code, example) for backend in backends]
    assert all(execution.ok for execution in executions), [execution.message for execution in executions]
    return [sorted(predicted_parts(execution.rows)) for execution in executions]


def test_the_right_query_of_every_sample_question_has_one_answer(backends: list[Backend]) -> None:
    targets = {example.metadata["target"] for split in DATASET.splits() for example in DATASET.load(split)}
    assert targets
    different = [target for target in targets if len({tuple(parts) for parts in answers(backends, target)}) > 1]
    assert different == []


@pytest.mark.parametrize(
    "expression",
    [
        "SUM(year)",
        "AVG(year)",
        "ROUND(AVG(year), 2)",
        "COUNT(*) * 1.5",
        "MAX(year) - MIN(year)",
        "MIN(location)",
        "NULL",
    ],
)
def test_values_of_every_type_have_one_text(backends: list[Backend], expression: str) -> None:
    sqlite, mariadb = answers(backends, f"SELECT {expression} FROM medal")
    if expression == "AVG(year)":  # MariaDB rounds an average of integers to four decimals
        assert float(sqlite[0]) == pytest.approx(float(mariadb[0]), abs=1e-4)
    else:
        assert sqlite == mariadb
