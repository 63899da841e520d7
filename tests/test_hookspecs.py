"""Hooks, roles and the public API say the same thing."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import codegym
from codegym import hookspecs
from codegym.plugins import HOOKS, Plugins
from codegym.roles import ROLES, Role

HOOK_NAMES = [name for name in vars(hookspecs) if name.startswith("codegym_")]


def test_there_is_one_hook_for_each_role() -> None:
    assert list(HOOKS) == HOOK_NAMES
    assert tuple(HOOKS.values()) == ROLES


@pytest.mark.parametrize("hook", HOOK_NAMES)
def test_a_hook_takes_nothing_and_returns_classes_of_its_role(hook: str) -> None:
    function = getattr(hookspecs, hook)
    assert not inspect.signature(function).parameters
    assert function.__annotations__["return"] == f"dict[str, type[{HOOKS[hook].__name__}]]"


@pytest.mark.parametrize("hook", HOOK_NAMES)
def test_the_example_of_a_hook_runs(hook: str) -> None:
    role = HOOKS[hook]
    [example] = [part for part in (getattr(hookspecs, hook).__doc__ or "").split("\n\n") if ">>>" in part]
    lines = [line.strip()[4:] for line in example.splitlines() if line.strip().startswith((">>>", "..."))]
    code = "\n".join(lines)
    [offered] = [node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name) and node.id[0].isupper()]
    names: dict[str, object] = {"codegym": codegym, offered: type(offered, (role,), {})}
    exec(code, names)
    assert list(names[hook]().values()) == [names[offered]]  # type: ignore[operator]


def test_the_plugin_in_the_modules_docstring_works(tmp_path: Path) -> None:
    text = (hookspecs.__doc__ or "").partition(":\n\n")[2]
    code = inspect.cleandoc("\n" + text)
    file = tmp_path / "brevity.py"
    file.write_text(code)
    reward, _ = Plugins([file]).find(codegym.Reward, "brevity")
    assert reward().score(codegym.Rollout(codegym.Example("test/0", "", ""), "", "SELECT 1")) == 1.0


def test_all_of_the_public_api_is_documented() -> None:
    members = {name: getattr(codegym, name) for name in codegym.__all__}
    assert [name for name, member in members.items() if inspect.isclass(member) and not inspect.getdoc(member)] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_method_of_a_role_says_what_it_returns_or_does(role: type[Role]) -> None:
    public = {name: member for name, member in vars(role).items() if name[0] != "_" and name != "role"}
    assert all(inspect.getdoc(member) for member in public.values())
