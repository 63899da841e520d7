"""Say how sure a measured share is, and whether a change of it is more than chance."""

from __future__ import annotations

from collections.abc import Sequence


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the lower and upper end of Wilson's score interval for a share, as fractions.

    It keeps its promise near 0 and 1 and for small `n`, where the usual mean plus or minus does not. With `n` = 0
    nothing is known: (0, 1). Formula: Wilson 1927, without continuity correction.
    """
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Return the two-sided p-value that the same questions were answered equally well before and after.

    Only questions whose result changed tell anything: if nothing had happened, as many would change for the better
    as for the worse. The test is exact (binomial). Formula: McNemar 1947. The sequences pair up by position;
    `ValueError` if their lengths differ.
    """
    pairs = list(zip(before, after, strict=True))
    gained = sum(not was and now for was, now in pairs)
    lost = sum(was and not now for was, now in pairs)
    if gained + lost == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost, 0.5).pvalue)


def rank_correlations(before: Sequence[float], after: Sequence[float]) -> dict[str, float | None]:
    """Return Spearman's rho and Kendall's tau-b of paired values: 1 if both put everything in the same order.

    Equal values share a rank. Where one side has a single value, there is no order: None. Formulas: Spearman 1904,
    Kendall 1945. The sequences pair up by position; `ValueError` if their lengths differ.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} values against {len(after)}")
    if len(set(before)) < 2 or len(set(after)) < 2:
        return {"spearman": None, "kendall": None}
    from scipy.stats import kendalltau, spearmanr

    return {
        "spearman": float(spearmanr(before, after).statistic),
        "kendall": float(kendalltau(before, after).statistic),
    }
