"""Register the datasets over athletes and their medals: the public release, and invented ones of the same shape."""

from __future__ import annotations

import codegym
from codegym_temptabqa.pairs import TemptabqaPairs
from codegym_temptabqa.release import Temptabqa
from codegym_temptabqa.sample import TemptabqaSample


@codegym.hookimpl
def codegym_datasets() -> dict[str, type[codegym.Dataset]]:
    """Return the datasets by name."""
    return {"temptabqa": Temptabqa, "temptabqa_sample": TemptabqaSample, "temptabqa_pairs": TemptabqaPairs}
