"""Durations are counted in memory that does not grow, and percentiles come out right to within nine percent."""

from __future__ import annotations

import pytest

from codegym.counters import Counters, Durations


def durations_of(*seconds: float) -> Durations:
    durations = Durations()
    for value in seconds:
        durations.add(value)
    return durations


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_a_percentile_is_right_to_within_nine_percent(share: float) -> None:
    durations = durations_of(*(number / 1000 for number in range(1, 1001)))
    assert durations.percentile(share) == pytest.approx(share, rel=0.09)


def test_no_duration_and_one_of_zero_are_no_problem() -> None:
    assert durations_of().percentile(0.5) == 0.0
    assert durations_of(0.0).percentile(0.5) < 1e-8


def test_memory_does_not_grow_with_the_number_of_durations() -> None:
    durations = durations_of(*(0.001 + number % 7 * 1e-6 for number in range(10_000)))
    assert len(durations._buckets) < 5
    assert durations.report()["count"] == 10_000


def test_the_report_tells_milliseconds_by_phase() -> None:
    counters = Counters(requested=2)
    counters.phases["execute"].add(0.25)
    report = counters.report()
    assert report["requested"] == 2
    assert report["phases"] == {"execute": {"count": 1, "p50_ms": 250.0, "p95_ms": 250.0, "p99_ms": 250.0}}


def test_a_duration_that_no_clock_gives_does_not_break_the_report() -> None:
    assert durations_of(float("inf"), float("nan"), -1.0, 0.001).report()["count"] == 4
