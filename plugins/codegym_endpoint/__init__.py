"""Bring the policy `endpoint`, which asks a model on a server."""

from __future__ import annotations

import codegym
from codegym_endpoint.policy import Endpoint


@codegym.hookimpl
def codegym_policies() -> dict[str, type[codegym.Policy]]:
    """Return the policies of this plugin by name."""
    return {"endpoint": Endpoint}
