"""The docs say what the code does: settings are documented, examples run and are shown whole, links are alive."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from codegym.plugins import HOOKS, Offer, Plugins
from codegym.settings import Evaluation, ExecutionSettings, Perturbation, Training

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
EXAMPLES = DOCS / "examples"
PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"), *(REPOSITORY / "benchmarks").rglob("*.md")])
BLOCK = re.compile(r"(?:^<!-- (?P<note>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SHIPPED = [offer for offer in Plugins().offers if offer.source.distribution == "codegym"]


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Yield note, language and text of every fenced block; the note is the HTML comment right above it."""
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield block["note"] or "", block["language"], block["text"]


@pytest.mark.parametrize("offer", SHIPPED, ids=lambda offer: f"{offer.role}-{offer.name}")
def test_every_setting_of_a_shipped_plugin_stands_in_its_manual(offer: Offer) -> None:
    manual = vars(offer.plugin_class).get("__doc__") or ""
    assert manual
    assert not manual.startswith(f"{offer.plugin_class.__name__}("), "the docstring is the one that dataclasses make"
    settings = dataclasses.fields(offer.plugin_class) if dataclasses.is_dataclass(offer.plugin_class) else ()
    assert [field.name for field in settings if not re.search(rf"\b{field.name}\b", manual)] == []


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_and_role_is_documented(hook: str) -> None:
    page = (DOCS / "writing-plugins.md").read_text()
    assert f"| `{HOOKS[hook].__name__}` |" in page
    assert f"`{hook}`" in page


@pytest.mark.parametrize("model", [Training, Evaluation, ExecutionSettings, Perturbation])
def test_every_key_of_a_run_file_is_documented(model: type[Training]) -> None:
    page = (DOCS / "run-file.md").read_text()
    assert [name for name in model.model_fields if f"\n| `{name}` | " not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    relative = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    assert [target for target in relative if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_that_repeat_an_example_are_equal_to_it_and_toml_is_toml(page: Path) -> None:
    for note, language, text in blocks(page):
        if note.startswith(("examples/", "docs/examples/")):
            assert text == (page.parent / note).read_text(), note
        if language == "toml":
            tomllib.loads(text)


def test_every_file_of_an_example_stands_in_the_docs() -> None:
    notes = {note for page in DOCS.glob("*.md") for note, _, _ in blocks(page)}
    files = [file for file in EXAMPLES.rglob("*") if file.suffix in (".py", ".toml")]
    assert {str(file.relative_to(DOCS)) for file in files} - notes == set()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples outside the repository, the packages among them installed into `site`."""
    folder = tmp_path_factory.mktemp("outside")
    for example in EXAMPLES.iterdir():
        shutil.copytree(example, folder / example.name, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    install = "install --quiet --no-index --no-deps --no-build-isolation --disable-pip-version-check --target"
    packages = sorted(file.parent for file in folder.glob("*/pyproject.toml"))
    command = [sys.executable, "-m", "pip", *install.split(), folder / "site", *packages]
    subprocess.run(command, check=True)
    return folder


def called(command: list[str], folder: Path, site: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", *command]
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return finished.stdout + finished.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_docs_show_what_is_printed(page: Path, outside: Path, tmp_path: Path) -> None:
    for note, language, text in blocks(page):
        if language != "console" or not note.startswith("run in "):
            continue
        folder = tmp_path / note.rpartition("/")[2]
        shutil.copytree(outside / folder.name, folder, dirs_exist_ok=True)
        for call in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, shown = call.partition("\n")
            printed = _words(called(shlex.split(command), folder, outside / "site"))
            missing = [line for line in shown.splitlines() if line != "..." and _words(line) not in printed]
            assert missing == [], f"$ {command}\n{printed}"


@pytest.mark.parametrize("example", sorted(EXAMPLES.iterdir()), ids=lambda example: example.name)
def test_an_example_runs_outside_the_repository(example: Path, outside: Path) -> None:
    printed = called(["codegym", "eval", "run.toml", "--out", "result"], outside / example.name, outside / "site")
    assert "Everything is in result" in printed
    assert len((outside / example.name / "result" / "rollouts" / "test.before.jsonl").read_text().splitlines()) == 4


def test_the_python_backend_outlives_what_code_does_to_its_process(outside: Path) -> None:
    called(["codegym", "eval", "run.toml", "--out", "outcomes"], outside / "python_backend", outside / "site")
    rollouts = outside / "python_backend" / "outcomes" / "rollouts" / "test.before.jsonl"
    executions = [json.loads(line)["execution"] for line in rollouts.read_text().splitlines()]
    assert [execution["error"] for execution in executions] == ["", "Timeout", "LimitExceeded", "Crash"]
    assert executions[0]["rows"] == [["1 9 16"]]


def _words(text: str) -> str:
    """Return text without the lines of tables, and with single blanks."""
    return " ".join(re.sub(r"[\u2500-\u257f]", " ", text).split())
