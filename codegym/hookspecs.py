"""Specify the six hooks: each returns names and the classes that play one role.

A plugin is a module with any of these functions, marked with `@hookimpl`, and an entry point in the group `codegym`
(or a file named by `plugins = [...]` in a run file):

    from dataclasses import dataclass

    import codegym


    @dataclass
    class Brevity(codegym.Reward):
        '''One point if the code is at most `limit` characters long.'''

        limit: int = 80

        def score(self, rollout):
            return float(len(rollout.code) <= self.limit)


    @codegym.hookimpl
    def codegym_rewards():
        return {"brevity": Brevity}
"""

from __future__ import annotations

import pluggy

from codegym.roles import Backend, Dataset, Exploit, Guard, Policy, Reward

PROJECT = "codegym"
"""Name of the marker, of the entry-point group and prefix of the hooks."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Decorator that marks a plugin's hook functions."""


@hookspec
def codegym_datasets() -> dict[str, type[Dataset]]:  # type: ignore[empty-body]
    """Return datasets by name.

    >>> @codegym.hookimpl
    ... def codegym_datasets():
    ...     return {"my_questions": MyQuestions}
    """


@hookspec
def codegym_policies() -> dict[str, type[Policy]]:  # type: ignore[empty-body]
    """Return policies by name.

    >>> @codegym.hookimpl
    ... def codegym_policies():
    ...     return {"my_model": MyModel}
    """


@hookspec
def codegym_guards() -> dict[str, type[Guard]]:  # type: ignore[empty-body]
    """Return guards by name.

    >>> @codegym.hookimpl
    ... def codegym_guards():
    ...     return {"no_comments": NoComments}
    """


@hookspec
def codegym_backends() -> dict[str, type[Backend]]:  # type: ignore[empty-body]
    """Return execution backends by name.

    >>> @codegym.hookimpl
    ... def codegym_backends():
    ...     return {"my_engine": MyEngine}
    """


@hookspec
def codegym_rewards() -> dict[str, type[Reward]]:  # type: ignore[empty-body]
    """Return rewards by name.

    >>> @codegym.hookimpl
    ... def codegym_rewards():
    ...     return {"brevity": Brevity}
    """


@hookspec
def codegym_exploits() -> dict[str, type[Exploit]]:  # type: ignore[empty-body]
    """Return exploits by name.

    >>> @codegym.hookimpl
    ... def codegym_exploits():
    ...     return {"my_cheat": MyCheat}
    """
