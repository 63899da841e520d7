import math

import pytest

from codegym.stats import mcnemar, rank_correlations, wilson_interval


def test_wilson_interval_is_the_root_of_its_quadratic():
    z = 1.959963984540054
    successes, n = 178, 578
    share, spread = successes / n, z**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert wilson_interval(successes, n) == pytest.approx((middle - half, middle + half))


def test_wilson_interval_stays_within_0_and_1():
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(10, 10)[1] == 1.0
    assert wilson_interval(0, 10)[1] > 0.2


def test_wilson_interval_of_nothing_says_that_nothing_is_known():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_more_confidence_gives_a_wider_interval():
    low, high = wilson_interval(30, 100)
    wider_low, wider_high = wilson_interval(30, 100, confidence=0.99)
    assert wider_low < low < 0.3 < high < wider_high


def test_mcnemar_counts_only_what_changed():
    gained, lost = [(False, True)] * 8, [(True, False)] * 1
    same = [(True, True)] * 50 + [(False, False)] * 50
    before, after = zip(*(gained + lost + same), strict=True)
    expected = 2 * (1 + 9) / 2**9  # two-sided: 0 or 1 of 9 fair coins, doubled
    assert mcnemar(before, after) == pytest.approx(expected)


def test_mcnemar_of_no_change_is_1():
    assert mcnemar([True, False], [True, False]) == 1.0
    assert mcnemar([], []) == 1.0


def test_mcnemar_refuses_sequences_that_do_not_pair_up():
    with pytest.raises(ValueError):
        mcnemar([True], [True, False])


def test_rank_correlations_are_1_for_the_same_order_and_minus_1_for_the_reverse():
    assert rank_correlations([1, 2, 3, 5], [10, 20, 30, 31]) == pytest.approx({"spearman": 1, "kendall": 1})
    assert rank_correlations([1, 2, 3], [3, 2, 1]) == pytest.approx({"spearman": -1, "kendall": -1})


def test_rank_correlations_of_equal_values_share_ranks():
    # Ranks 1.5 1.5 3 and 1 2 3; of three pairs two agree and one is equal on one side: 2 / sqrt(2 * 3).
    found = rank_correlations([1, 1, 2], [1, 2, 3])
    assert found == pytest.approx({"spearman": math.sqrt(3) / 2, "kendall": 2 / math.sqrt(6)})


def test_a_single_value_has_no_order():
    assert rank_correlations([1, 1], [1, 2]) == {"spearman": None, "kendall": None}
    with pytest.raises(ValueError, match="1 values against 2"):
        rank_correlations([1], [1, 2])
