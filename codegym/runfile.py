"""Read a run file and the files it extends into one table, remembering which file said what."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codegym.errors import ConfigError
from codegym.plugins import did_you_mean

Table = dict[str, Any]


@dataclass
class RunFile:
    """The merged table of a run file, its layers and the overrides on the command line.

    `origins` maps each dotted key to the file, or `--set`, that set it last. `plugin_files` are local plugins.
    `problems` are mistakes that do not keep the rest from being checked too.
    """

    path: Path
    table: Table = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    plugin_files: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def origin(self, key: str) -> str:
        """Return which file set a key, or the nearest table around it."""
        while key and key not in self.origins:
            key = key.rpartition(".")[0]
        return self.origins.get(key, str(self.path))

    def lay(self, above: Table, origin: str) -> None:
        """Lay a table of that origin over this one."""
        self._merge(self.table, above, origin, "")

    def _merge(self, below: Table, above: Table, origin: str, prefix: str) -> None:
        if "plugin" in below and "plugin" in above and below["plugin"] != above["plugin"]:
            # Another plugin: the settings of the one before mean nothing to it.
            below.clear()
            self.origins = {key: file for key, file in self.origins.items() if not key.startswith(prefix)}
            self.origins[prefix.rstrip(".")] = origin
        for key, value in above.items():
            if not isinstance(value, dict):
                below[key] = value
                self.origins[prefix + key] = origin
                continue
            if not isinstance(below.get(key), dict):
                below[key] = {}
                self.origins[prefix + key] = origin
            self._merge(below[key], value, origin, f"{prefix}{key}.")


def read(path: Path, overrides: Sequence[str] = ()) -> RunFile:
    """Read a run file with its `extends` chain, then apply overrides of the form `table.key=value`.

    Raises `ConfigError` for run files that are missing, are no TOML or extend one another in a circle.
    """
    run_file = RunFile(path)
    for layer, table in _layers(path, ()):
        _take_plugin_files(run_file, layer, table)
        run_file.lay(_anchored(table, layer.parent), str(layer))
    from_command_line: Table = {}
    for override in overrides:
        _override(run_file, from_command_line, override)
    run_file.lay(_anchored(from_command_line, Path.cwd()), "--set")
    return run_file


def put(table: Table, names: Sequence[str], value: object) -> None:
    """Set `table[names[0]][names[1]]...`, making the tables on the way."""
    for name in names[:-1]:
        if not isinstance(table.get(name), dict):
            table[name] = {}
        table = table[name]
    table[names[-1]] = value


def _layers(path: Path, extended_by: tuple[Path, ...]) -> list[tuple[Path, Table]]:
    """Return the file and all it extends, the most basic first."""
    if path.resolve() in [earlier.resolve() for earlier in extended_by]:
        chain = " -> ".join(str(file) for file in (*extended_by, path))
        raise ConfigError(f"{path}: extends itself: {chain}")
    by = f", which {extended_by[-1]} extends" if extended_by else ""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no run file {path}{by}{_sibling(path)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, not a run file{by}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}{by}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}{by}") from None
    base = table.pop("extends", None)
    if base is None:
        return [(path, table)]
    if not isinstance(base, str):
        raise ConfigError(f'{path}: extends: expected the name of one file such as "other.toml", got {base!r}')
    return [*_layers(path.parent / base, (*extended_by, path)), (path, table)]


def _take_plugin_files(run_file: RunFile, layer: Path, table: Table) -> None:
    """Move the local plugins of a layer from its table to the run file."""
    names = table.pop("plugins", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        run_file.problems.append(f'{layer}: plugins: expected a list of files such as ["my_reward.py"], got {names!r}')
        return
    for file in [layer.parent / name for name in names]:
        if not file.is_file():
            run_file.problems.append(f"{layer}: plugins: there is no file {file}{_sibling(file)}")
        elif file.resolve() not in run_file.plugin_files:
            run_file.plugin_files.append(file.resolve())


def _sibling(path: Path) -> str:
    # By the stem: in all of them `.toml` is alike.
    hint = did_you_mean(path.stem, [file.stem for file in path.parent.glob(f"*{path.suffix}")])
    return hint.replace("?", f"{path.suffix}?")


def _anchored(value: Any, folder: Path) -> Any:
    """Resolve every string that starts with ./ or ../ against the folder of its run file."""
    if isinstance(value, dict):
        return {key: _anchored(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_anchored(item, folder) for item in value]
    if isinstance(value, str) and value.startswith(("./", "../")) and "\n" not in value:
        return str((folder / value).resolve())
    return value


def _override(run_file: RunFile, table: Table, override: str) -> None:
    """Put the value of one `a.b=value` into a table."""
    key, equals, text = override.partition("=")
    names = [name.strip() for name in key.split(".")]
    if not equals or not all(names):
        run_file.problems.append(f"--set {override}: expected table.key=value, such as policy.learning_rate=1e-5")
    elif names[0] in ("extends", "plugins"):
        run_file.problems.append(f"--set {override}: {names[0]} can only be set in a run file")
    else:
        put(table, names, _parsed(text))


def _parsed(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:  # a bare word
        return text
