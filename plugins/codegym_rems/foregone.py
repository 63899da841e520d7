"""Recognize expressions whose value is known from their form, whatever stands in the tables."""

from __future__ import annotations

from sqlglot import exp

_ZEROED = (exp.Mul, exp.And, exp.Left, exp.Right)
_OF_EQUALS = (exp.Binary, exp.Nullif, exp.DateDiff, exp.TimestampDiff)


def is_foregone(node: exp.Expr) -> bool:
    """Return True for `x - x`, `x = x`, `NULLIF(x, x)`, `x * 0`, `LEFT(x, 0)`, `COUNT(*) >= 0`, and their like.

    The value may be NULL as well. What takes more than a look at one operator is not seen.
    """
    left, right = _bare(node.args.get("this")), _bare(node.args.get("expression"))
    if right is None:
        return isinstance(node, exp.Substring) and _number(node.args.get("length")) == 0
    if isinstance(node, exp.Is):
        return left == right or (_is_count(left) and isinstance(right, exp.Null))
    if isinstance(node, _OF_EQUALS) and type(left) is type(right) and left == right:
        return not isinstance(node, exp.And | exp.Or)
    if isinstance(node, _ZEROED):
        return _number(left) == 0 or _number(right) == 0
    if isinstance(node, exp.EQ | exp.NEQ | exp.GT | exp.GTE | exp.LT | exp.LTE):
        return _is_no_count(left, right, isinstance(node, exp.GTE | exp.LT)) or _is_no_count(
            right, left, isinstance(node, exp.LTE | exp.GT)
        )
    return False


def is_zero(node: exp.Expr) -> bool:
    """Return True for 0, `x - x`, `x * 0`: every sum of it is 0, or NULL where there are no rows."""
    return _number(node) == 0 or (isinstance(node, exp.Sub | exp.Mul) and is_foregone(node))


def is_false(node: object) -> bool:
    """Return True for what decides no OR: 0, FALSE, NULL, and a text that begins with no number.

    Such a text may also be joined: where `||` is no OR, a parser that takes it for one does not know.
    """
    bare = _bare(node)
    if isinstance(bare, exp.Or):
        return is_false(bare.this) and is_false(bare.expression)
    if isinstance(bare, exp.Literal) and bare.is_string:
        return not bare.this.lstrip(" \t\r\n+-.")[:1].isdigit()
    return isinstance(bare, exp.Null) or _number(bare) == 0


def makes_one_row(select: exp.Select) -> bool:
    """Return whether aggregates without GROUP BY make one row of all, and of nothing too."""
    return not select.args.get("group") and any(
        not call.args.get("expressions")  # MAX(a, b) of SQLite is no aggregate
        and call.find_ancestor(exp.Select) is select
        and not isinstance(call.find_ancestor(exp.Window, exp.Select), exp.Window)
        for projection in select.expressions
        for call in projection.find_all(exp.AggFunc)
    )


def _bare(node: object) -> object:
    """Return what stands in brackets."""
    return node.unnest() if isinstance(node, exp.Expr) else node


def _is_count(node: object) -> bool:
    """Return whether it is COUNT, or a query that returns one COUNT."""
    if isinstance(node, exp.Select) and len(node.expressions) == 1:
        plain = not any(node.args.get(part) for part in ("group", "having", "limit", "offset"))
        return plain and isinstance(node.expressions[0], exp.Count)
    return isinstance(node, exp.Count)


def _is_no_count(counted: object, bound: object, or_zero: bool) -> bool:
    """Return whether a count is compared with what it always exceeds."""
    number = _number(bound) if _is_count(counted) else None
    return number is not None and (number < 0 or (number == 0 and or_zero))


def _number(node: object) -> float | None:
    node = _bare(node)
    if isinstance(node, exp.Boolean):
        return float(node.this)
    if isinstance(node, exp.Neg):
        number = _number(node.this)
        return None if number is None else -number
    if not isinstance(node, exp.Literal) or node.is_string:
        return None
    try:
        return float(node.this)
    except ValueError:  # as some dialects write numbers
        return None
