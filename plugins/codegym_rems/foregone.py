"""Recognize expressions whose value is known from their form, whatever stands in the tables."""

from __future__ import annotations

from sqlglot import exp

_ZEROED = (exp.Mul, exp.Left, exp.Right)


def is_foregone(node: exp.Expr) -> bool:
    """Return True for `x - x`, `x = x`, `NULLIF(x, x)`, `x * 0`, `LEFT(x, 0)`, `COUNT(*) >= 0`, and their like.

    The value may be NULL as well. What takes more than a look at one operator is not seen.
    """
    left, right = node.args.get("this"), node.args.get("expression")
    if right is None:
        return isinstance(node, exp.Substring) and _number(node.args.get("length")) == 0
    if isinstance(node, exp.Is):
        return left == right or isinstance(left, exp.Count)
    if isinstance(node, exp.Binary | exp.Nullif) and type(left) is type(right) and left == right:
        return not isinstance(node, exp.And | exp.Or)
    if isinstance(node, _ZEROED):
        return _number(left) == 0 or _number(right) == 0
    if isinstance(node, exp.EQ | exp.NEQ | exp.GT | exp.GTE | exp.LT | exp.LTE):
        return _is_no_count(left, right, isinstance(node, exp.GTE | exp.LT)) or _is_no_count(
            right, left, isinstance(node, exp.LTE | exp.GT)
        )
    return False


def _is_no_count(counted: object, bound: object, or_zero: bool) -> bool:
    """Return whether a count is compared with what it always exceeds."""
    number = _number(bound) if isinstance(counted, exp.Count) else None
    return number is not None and (number < 0 or (number == 0 and or_zero))


def _number(node: object) -> float | None:
    if isinstance(node, exp.Neg):
        number = _number(node.this)
        return None if number is None else -number
    if not isinstance(node, exp.Literal) or node.is_string:
        return None
    try:
        return float(node.this)
    except ValueError:  # as some dialects write numbers
        return None
