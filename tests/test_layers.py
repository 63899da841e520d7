"""Imports go one way: the core's modules in their order, plugins to the core only, heavy packages where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ORDER = [
    ["errors"],
    ["processes", "stopping"],
    ["jsonl"],
    ["types"],
    ["roles"],
    ["hookspecs"],
    ["worker_main"],
    ["worker"],
    ["cluster"],
    ["keeper"],
    ["server"],
    ["extract"],
    ["plugins"],
    ["runfile"],
    ["complaints"],
    ["settings"],
    ["config"],
    ["cache"],
    ["counters"],
    ["lane"],
    ["schema"],
    ["cutting"],
    ["perturbing"],
    ["lanes"],
    ["grading"],
    ["stats"],
    ["curriculum"],
    ["verdict"],
    ["report"],
    ["run"],
    ["rescore"],
    ["disagreements"],
    ["resume"],
    ["baselines"],
    ["watching"],
    ["experiment"],
    ["vocabulary"],
    ["gold"],
    ["check"],
    ["honest"],
    ["hearing"],
    ["remedies"],
    ["audit"],
    ["profile"],
    ["cli"],
    ["__main__"],
]
LAYER = {module: index for index, modules in enumerate(ORDER) for module in modules}
TRAINING = {"torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets"}
PLUGINS = sorted(folder for folder in (REPOSITORY / "plugins").iterdir() if (folder / "__init__.py").exists())


def imports(file: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, those under `if TYPE_CHECKING` and inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(file: Path) -> str:
    return file.relative_to(REPOSITORY / "codegym").parts[0].removesuffix(".py")


def test_every_module_of_the_core_has_its_layer() -> None:
    modules = {layer(file) for file in (REPOSITORY / "codegym").rglob("*.py")} - {"__init__"}
    assert modules - LAYER.keys() - {"testing"} == set()


def test_the_core_imports_downwards_only() -> None:
    wrong = []
    for file in (REPOSITORY / "codegym").rglob("*.py"):
        for name in imports(file):
            package, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if package == "codegym" and LAYER.get(target, 0) > LAYER.get(layer(file), len(LAYER)):
                wrong.append(f"{file.relative_to(REPOSITORY)} imports {name}")
    assert wrong == []


def test_the_core_imports_no_plugin_and_nothing_heavy() -> None:
    forbidden = {*TRAINING, "MySQLdb", "sqlglot", *(plugin.name for plugin in PLUGINS)}
    files = (REPOSITORY / "codegym").rglob("*.py")
    assert [f"{file}: {name}" for file in files for name in imports(file) if name.partition(".")[0] in forbidden] == []


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_a_plugin_imports_of_codegym_only_the_public_api_and_no_other_plugin(plugin: Path) -> None:
    public = set(ast.literal_eval(_assigned(REPOSITORY / "codegym" / "__init__.py", "__all__")))
    others = {other.name for other in PLUGINS} - {plugin.name}
    wrong = []
    for file in plugin.rglob("*.py"):
        for name in imports(file):
            package, _, rest = name.partition(".")
            if package in others or (package == "codegym" and rest and rest not in public):
                wrong.append(f"{file.relative_to(REPOSITORY)} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_heavy_packages_are_imported_by_their_own_plugin_only(plugin: Path) -> None:
    homes = {**dict.fromkeys(TRAINING, "codegym_grpo"), "MySQLdb": "codegym_mariadb"}
    found = {name.partition(".")[0] for file in plugin.rglob("*.py") for name in imports(file)}
    assert {name for name in found if homes.get(name, plugin.name) != plugin.name} == set()


LIGHT = """
import sys
for name in sys.argv[1:]:
    __import__(name)
heavy = {"torch", "transformers", "trl", "peft", "datasets", "matplotlib", "MySQLdb"} & sys.modules.keys()
assert not heavy, heavy
"""
CALL = """
import sys
from codegym.cli import app
try:
    app(sys.argv[1:])
except SystemExit as stopped:
    assert not stopped.code, stopped.code
heavy = {"torch", "transformers", "trl", "peft", "datasets", "matplotlib", "MySQLdb"} & sys.modules.keys()
assert not heavy, heavy
"""


def python(code: str, *arguments: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_importing_every_plugin_imports_nothing_heavy() -> None:
    python(LIGHT, *(plugin.name for plugin in PLUGINS))


@pytest.mark.parametrize("argument", ["--help", "plugins"])
def test_help_and_plugins_import_nothing_heavy(argument: str) -> None:
    assert {"--help": "Usage", "plugins": "sqlite"}[argument] in python(CALL, argument)


def _assigned(file: Path, name: str) -> ast.expr:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == [name]:
            return node.value
    raise AssertionError(f"{file} assigns no {name}")
