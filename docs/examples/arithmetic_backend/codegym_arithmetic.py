"""Bring the backend `arithmetic` and the dataset `sums`."""

import ast
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

import codegym

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
SUMS = ("17 + 4", "3 * (5 - 2)", "144 / 12", "1 - 10")


@dataclass
class Arithmetic(codegym.Backend):
    """Evaluates one expression of numbers, + - * / and parentheses. Nothing in it is ever run as Python.

    max_characters: length of the longest expression that is evaluated, at most 500; default 200
    """

    max_characters: Annotated[int, Field(ge=1, le=500)] = 200

    def execute(self, code: str, example: codegym.Example) -> codegym.Execution:
        try:
            if len(code) > self.max_characters:
                raise ValueError(f"the expression is longer than {self.max_characters} characters")
            value = evaluate(ast.parse(code, mode="eval").body)
        except (ValueError, SyntaxError, ArithmeticError) as error:
            return codegym.Execution(error=type(error).__name__, message=str(error))
        return codegym.Execution(columns=("value",), rows=((value,),))


def evaluate(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            result: int | float = OPERATORS[type(op)](evaluate(left), evaluate(right))
            return result
    raise ValueError("an expression consists of numbers, + - * / and parentheses")


@dataclass
class Sums(codegym.Dataset):
    """Four sums, in the split `test`. No settings."""

    def splits(self) -> list[str]:
        return ["test"]

    def load(self, split: str) -> Iterable[codegym.Example]:
        if split != "test":
            raise codegym.ConfigError(f'sums: there is no split "{split}", only "test"')
        for row, text in enumerate(SUMS):
            answer = str(evaluate(ast.parse(text, mode="eval").body))
            yield codegym.Example(f"test/{row}", f"What is {text}?", answer, metadata={"target": text})


@codegym.hookimpl
def codegym_backends() -> dict[str, type[codegym.Backend]]:
    return {"arithmetic": Arithmetic}


@codegym.hookimpl
def codegym_datasets() -> dict[str, type[codegym.Dataset]]:
    return {"sums": Sums}
