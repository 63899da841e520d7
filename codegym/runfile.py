"""Read a run file and the files it extends into one table, remembering which file said what."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codegym.errors import ConfigError

Table = dict[str, Any]


@dataclass
class RunFile:
    """The merged table of a run file, its layers and the overrides on the command line.

    `origins` maps each dotted key to the file, or `--set`, that set it last. `plugin_files` are local plugins.
    """

    path: Path
    table: Table = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    plugin_files: list[Path] = field(default_factory=list)

    def origin(self, key: str) -> str:
        """Return which file set a key, or the nearest table around it."""
        while key and key not in self.origins:
            key = key.rpartition(".")[0]
        return self.origins.get(key, str(self.path))


def read(path: Path, overrides: Sequence[str] = ()) -> RunFile:
    """Read a run file with its `extends` chain, then apply overrides of the form `table.key=value`.

    Raises `ConfigError` for files that are missing, are no TOML or extend one another in a circle.
    """
    run_file = RunFile(path)
    for layer, table in _layers(path, ()):
        run_file.plugin_files += _plugin_files(layer, table)
        _merge(run_file, run_file.table, _anchored(table, layer.parent), str(layer))
    problems = [problem for override in overrides if (problem := _override(run_file, override))]
    if problems:
        raise ConfigError(problems)
    return run_file


def _layers(path: Path, extended_by: tuple[Path, ...]) -> list[tuple[Path, Table]]:
    """Return the file and all it extends, the most basic first."""
    if path.resolve() in [earlier.resolve() for earlier in extended_by]:
        chain = " -> ".join(str(file) for file in (*extended_by, path))
        raise ConfigError(f"{path}: extends itself: {chain}")
    by = f", which {extended_by[-1]} extends" if extended_by else ""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no run file {path}{by}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, not a run file{by}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    base = table.pop("extends", None)
    if base is None:
        return [(path, table)]
    if not isinstance(base, str):
        raise ConfigError(f'{path}: extends: expected the name of one file such as "other.toml", got {base!r}')
    return [*_layers(path.parent / base, (*extended_by, path)), (path, table)]


def _plugin_files(layer: Path, table: Table) -> list[Path]:
    files = table.pop("plugins", [])
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise ConfigError(f'{layer}: plugins: expected a list of files such as ["my_reward.py"], got {files!r}')
    missing = [file for file in files if not (layer.parent / file).is_file()]
    if missing:
        raise ConfigError([f"{layer}: plugins: there is no file {layer.parent / file}" for file in missing])
    return [(layer.parent / file).resolve() for file in files]


def _anchored(value: Any, folder: Path) -> Any:
    """Resolve every string that starts with ./ or ../ against the folder of its run file."""
    if isinstance(value, dict):
        return {key: _anchored(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_anchored(item, folder) for item in value]
    if isinstance(value, str) and value.startswith(("./", "../")) and "\n" not in value:
        return str((folder / value).resolve())
    return value


def _merge(run_file: RunFile, below: Table, above: Table, origin: str, prefix: str = "") -> None:
    """Lay `above` over `below`, table by table.

    A table that names another plugin than the one below starts afresh: one plugin's settings mean nothing to another.
    """
    if below.get("plugin") != above.get("plugin", below.get("plugin")):
        below.clear()
    for key, value in above.items():
        if isinstance(value, dict):
            inner = below.get(key)
            below[key] = inner if isinstance(inner, dict) else {}
            run_file.origins.setdefault(prefix + key, origin)
            _merge(run_file, below[key], value, origin, f"{prefix}{key}.")
        else:
            below[key] = value
            run_file.origins[prefix + key] = origin


def _override(run_file: RunFile, override: str) -> str:
    """Apply one `a.b=value`; return what is wrong with it, or an empty string."""
    key, equals, text = override.partition("=")
    names = [name.strip() for name in key.split(".")]
    if not equals or not all(names):
        return f"--set {override}: expected table.key=value, such as policy.learning_rate=1e-5"
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for name in reversed(names):
        value = {name: value}
    _merge(run_file, run_file.table, _anchored(value, Path.cwd()), "--set")
    return ""
