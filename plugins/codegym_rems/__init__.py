"""Offer the rewards `rems` and `exact_match` and the guards `no_select_star`, `grounded`, `allowed_sql`."""

from __future__ import annotations

import codegym
from codegym_rems.allowed import AllowedSql
from codegym_rems.grounded import Grounded
from codegym_rems.guard import NoSelectStar
from codegym_rems.rewards import ExactMatch, Rems


@codegym.hookimpl
def codegym_rewards() -> dict[str, type[codegym.Reward]]:
    """Return the paper's composite and the plain exact match."""
    return {"rems": Rems, "exact_match": ExactMatch}


@codegym.hookimpl
def codegym_guards() -> dict[str, type[codegym.Guard]]:
    """Return the guards against queries that return everything, return constants, or do other things than query."""
    return {"no_select_star": NoSelectStar, "grounded": Grounded, "allowed_sql": AllowedSql}
