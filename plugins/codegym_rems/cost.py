"""Tell from a query's tokens whether sqlglot would take too long over it, or recurse until the process dies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from sqlglot import Token, TokenType

MAX_DEPTH = 14
"""Nested brackets: sqlglot recurses for each, its compiled build dies of 400, and many double its time."""
MAX_JOINS = 12
MAX_FORKS = 14
"""Joins, nested brackets and guesses together: each may double sqlglot's time, because it reads what stands behind it
in one way and then in another. It looks for the ON of every JOIN, so that 20 without one take 5 s."""
MAX_PREFIXES = 100
"""`NOT`, signs, `CASE` and the like: sqlglot recurses for each that stands before another."""
NESTED_TOO_DEEPLY = "the code is nested too deeply to be read"

# A bracket after any other word, as in `DATE(`, `LATERAL (` or `UNION (`, may quadruple the time.
_USUAL = re.compile(
    r"SEMICOLON|[LR]_PAREN|COMMA|N?EQ|[LG]TE?|PLUS|DASH|STAR|SLASH|AND|OR|NOT|IN|ALIAS|USING|OVER|FROM|JOIN|ON|SELECT"
    r"|DISTINCT|WHERE|HAVING|CASE|WHEN|THEN|ELSE|BETWEEN|(ORDER|GROUP)_BY|VAR"
)
_USUAL_BEFORE_BRACKETS = frozenset(kind for kind in TokenType if _USUAL.fullmatch(kind.name))
_OPEN = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE})
_CLOSED = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE})
_PREFIXES = (TokenType.NOT, TokenType.CASE, TokenType.INTERVAL, TokenType.ANY, TokenType.ALL, TokenType.SOME)
_SIGNS = frozenset({TokenType.DASH, TokenType.PLUS, TokenType.TILDE, TokenType.INTRODUCER})
_GUESSES = (TokenType.LIMIT, TokenType.INTERVAL, TokenType.ARRAY, TokenType.COLON)


def refused_cost(tokens: Sequence[Token]) -> str | None:
    """Return why the tokens are refused, or None."""
    kinds = [token.token_type for token in tokens]
    joins = kinds.count(TokenType.JOIN) + kinds.count(TokenType.STRAIGHT_JOIN)
    if joins > MAX_JOINS:
        return f"{joins} joins are more than the limit of {MAX_JOINS}: reading them takes too long"
    if sum(map(kinds.count, _PREFIXES)) + _signs_in_a_row(kinds) > MAX_PREFIXES:
        return NESTED_TOO_DEEPLY
    forks = joins + _guesses(tokens, kinds)
    weights: list[int] = []  # of each bracket that is open
    for before, kind in pairwise([TokenType.SEMICOLON, *kinds]):
        if kind in _OPEN:
            weights.append(1 if before in _USUAL_BEFORE_BRACKETS else 2)
            if len(weights) > MAX_DEPTH:
                return f"brackets are nested more than {MAX_DEPTH} deep"
        elif kind in _CLOSED and weights:
            weights.pop()
        if forks + sum(weights) > MAX_FORKS:
            nested = forks - joins + len(weights)
            return f"{joins} joins and {nested} nested calls are too many: reading them takes too long"
    return None


def _signs_in_a_row(kinds: Sequence[TokenType]) -> int:
    if _SIGNS.isdisjoint(kinds):
        return 0
    return sum(before in _SIGNS and kind in _SIGNS for before, kind in pairwise(kinds))


def _guesses(tokens: Sequence[Token], kinds: Sequence[TokenType]) -> int:
    """Count what sqlglot reads in two ways without a bracket, and calls of what a call returned: `f().g()`."""
    ifs = sum(token.text.upper() == "IF" for token, after in pairwise(tokens) if after.token_type not in _OPEN)
    chained = (
        0
        if TokenType.DOT not in kinds
        else sum(before == TokenType.R_PAREN and kind == TokenType.DOT for before, kind in pairwise(kinds))
    )
    return ifs + chained + sum(map(kinds.count, _GUESSES))
