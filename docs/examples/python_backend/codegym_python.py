"""Bring the backend `python`, which calls the function that the code defines, and the dataset `functions`."""

import json
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

import codegym

CALLER = Path(__file__).with_name("codegym_python_caller.py")
TASKS = (
    ("Define solve(n), which returns the square of n.", "[1, 3, -4]", "1 9 16"),
    ("Define solve(text), which returns the text backwards.", '["abc", "gym"]', "'cba' 'myg'"),
    ("Define solve(ns), which returns the sum of a list.", "[[], [4], [1, 2, 3]]", "0 4 6"),
    ("Define solve(n), which returns n factorial.", "[0, 3, 5]", "1 6 120"),
)


@dataclass
class Python(codegym.Backend):
    """Runs Python code and calls its function `solve` with each of the example's inputs; the answer is all results.

    Each code has a process of its own, which can be killed, and whose time and memory are bounded. It is no jail:
    code reads and deletes your files and uses the network as you can, and code that looks for the way by which its
    process reports can report what it likes. Put a run of code that you do not trust into a container.

    time_limit  seconds of CPU time for all calls together; default 2
    memory_mb   mebibytes that the process may map; default 512
    """

    time_limit: Annotated[float, Field(gt=0)] = 2.0
    memory_mb: Annotated[int, Field(ge=64)] = 512

    def execute(self, code: str, example: codegym.Example) -> codegym.Execution:
        wall_limit = 5 * self.time_limit + 5
        worker = codegym.Worker(
            CALLER, None, cpu_limit=self.time_limit, wall_limit=wall_limit, memory_mb=self.memory_mb
        )
        with closing(worker):
            (reply,) = worker.handle([(code, json.loads(example.metadata["inputs"]))])
        match reply:
            case codegym.Killed(reason="crash"):
                return codegym.Execution(error="Crash", message=reply.message)
            case codegym.Killed():
                return codegym.Execution(error="Timeout", message=reply.message, repeatable=reply.reason == "cpu")
            case ("", str(answer)):
                return codegym.Execution(columns=("answer",), rows=((answer,),))
            case (str(error), str(message)):
                return codegym.Execution(error=error, message=message)
        return codegym.Execution(error="Crash", message="the process answered with what is no answer")


@dataclass
class Functions(codegym.Dataset):
    """Four functions to define, in the split `test`. No settings."""

    def splits(self) -> list[str]:
        return ["test"]

    def load(self, split: str) -> Iterable[codegym.Example]:
        if split != "test":
            raise codegym.ConfigError(f'functions: there is no split "{split}", only "test"')
        for row, (prompt, inputs, answer) in enumerate(TASKS):
            # What the code runs on is the inputs: by their name codegym knows which answers it has already.
            yield codegym.Example(f"test/{row}", prompt, answer, f"inputs/{row}", {"inputs": inputs})


@codegym.hookimpl
def codegym_backends() -> dict[str, type[codegym.Backend]]:
    return {"python": Python}


@codegym.hookimpl
def codegym_datasets() -> dict[str, type[codegym.Dataset]]:
    return {"functions": Functions}
