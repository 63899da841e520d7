"""Say whose mistake it was: the user's, a plugin's or the machine's; a model's mistake is data, not an error."""

from __future__ import annotations

from collections.abc import Sequence


class CodegymError(Exception):
    """Something that stops codegym. The command line prints it without a traceback; `--debug` shows one."""

    exit_code = 1


class ConfigError(CodegymError):
    """The user's mistake: a run file, a setting, a file that is not there.

    It carries every problem that was found, so that a user mends them in one go.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class PluginError(CodegymError):
    """A plugin's mistake: which plugin, and which promise it broke."""

    exit_code = 3


class MissingDependency(PluginError):
    """A plugin needs a package that is not installed. The message holds the pip command that mends it."""

    def __init__(self, plugin: str, package: str, install: str) -> None:
        super().__init__(f"{plugin} needs the package {package}, which is not installed. Install it with: {install}")


class BackendError(CodegymError):
    """The machine's failure: a dead server, a lost connection, a full disk. Never a score.

    A backend raises it for whatever is not the fault of the code it was given. The core tries again and then
    stops the run. `broke` says that the backend itself was lost, which code may bring about; what it goes on telling,
    such as a full disk, is never the code's fault.
    """

    exit_code = 4

    def __init__(self, message: str = "", broke: bool = True) -> None:
        super().__init__(message)
        self.broke = broke


class Interrupted(CodegymError):
    """The user stopped the run (Ctrl-C, SIGTERM); what was finished is on disk."""

    exit_code = 130
