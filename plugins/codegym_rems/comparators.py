"""Declare what "equal" means: presets named after known evaluations, and the rules that they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import ConfigDict, Field

Preset = Literal["strict", "release_rems", "release_ems", "bird_ex", "spider_exec"]
Reference = Literal["text", "rows"]
Columns = Literal["joined", "cells", "position", "permuted"]
Rows = Literal["set", "bag", "list", "as_target"]
Values = Literal["text", "typed"]
Numbers = Literal["digits", "value"]
Tolerance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Null = Literal["skip", "value"]
Case = Literal["exact", "fold"]
Space = Literal["collapse", "strip", "exact"]
Empty = Literal["unequal", "equal"]


class Rules(NamedTuple):
    """Every rule of a comparator, as `Comparator` describes them; the defaults are those of `strict`."""

    columns: Columns = "joined"
    rows: Rows = "set"
    values: Values = "text"
    numbers: Numbers = "digits"
    number_tolerance: float = 0.0
    null: Null = "skip"
    case: Case = "exact"
    space: Space = "collapse"
    empty: Empty = "unequal"


_TUPLES = Rules(columns="position", values="typed", numbers="value", null="value", space="exact", empty="equal")
"""Rows equal as Python's tuples are."""

PRESETS: dict[str, Rules] = {
    "strict": Rules(),
    "bird_ex": _TUPLES,
    "spider_exec": _TUPLES._replace(columns="permuted", rows="as_target"),
}
"""The presets that rules can say; the release's two scripts stand in `release.py`."""


@dataclass(frozen=True)
class Comparator:
    """What "equal" means: a preset, and the rules that shall differ from it.

    preset: "strict" (default), codegym's own; "release_rems" and "release_ems", TEMPTABQA-C's scripts; "bird_ex",
        BIRD's execution accuracy; "spider_exec", the execution match of Spider's test-suite evaluation
    reference: "text" (default), answers split on commas, rows of one cell; "rows", answers are JSON, a list of rows
    columns: "joined", a row is one text; "cells", each by itself; "position"; "permuted", in one order for all rows
    rows: "set"; "bag", as often; "list", in order; "as_target", "list" if the example's target has ORDER BY, else "bag"
    values: "text", as written, so that 2 equals "2"; "typed", where the reference is rows: a number equals no text
    numbers: "digits", a decimal of the reference equals a number within half a unit of its last digit; "value"
    number_tolerance: how far a number may be from the reference's, absolute, where that is more
    null: "skip", left out of its row; "value", equal to NULL alone
    case: "exact", or "fold" for upper and lower alike
    space: "collapse", a run of whitespace is one space and the ends are cut; "strip", the ends are cut; "exact"
    empty: "unequal", or "equal" for no rows against an empty reference
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    preset: Preset = "strict"
    reference: Reference = "text"
    columns: Columns | None = None
    rows: Rows | None = None
    values: Values | None = None
    numbers: Numbers | None = None
    number_tolerance: Tolerance | None = None
    null: Null | None = None
    case: Case | None = None
    space: Space | None = None
    empty: Empty | None = None

    def __post_init__(self) -> None:
        if self.changed and self.is_script:
            raise ValueError(
                f'the preset "{self.preset}" is a script and has no rules to change: leave out '
                f"{', '.join(self.changed)}, or take another preset"
            )

    @property
    def is_script(self) -> bool:
        """True for the scripts of TEMPTABQA-C."""
        return self.preset in ("release_rems", "release_ems")

    @property
    def measures_rems(self) -> bool:
        """True if the recall is REMS as TEMPTABQA-C defines it."""
        return self.is_script or self == Comparator()

    @property
    def changed(self) -> dict[str, str | float]:
        """Return the rules that are set beside the preset."""
        values = {name: getattr(self, name) for name in Rules._fields}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def name(self) -> str:
        """Return the preset and what differs from it, for a report."""
        reference = {"reference": "rows"} if self.reference == "rows" else {}
        changes = ", ".join(f"{name} = {value}" for name, value in {**reference, **self.changed}.items())
        return f"{self.preset} ({changes})" if changes else self.preset

    def rules(self) -> Rules:
        """Return every rule, the preset's where none is set. The scripts have none."""
        return PRESETS[self.preset]._replace(**self.changed)  # type: ignore[arg-type]  # pydantic has checked them


def as_table(setting: object) -> object:
    """Return `comparator = "bird_ex"` as the table that it is short for, and anything else as it is."""
    return {"preset": setting} if isinstance(setting, str) else setting
