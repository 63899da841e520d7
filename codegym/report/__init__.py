"""Keep and show what a run found out."""

from codegym.report.card import model_card
from codegym.report.explain import explain
from codegym.report.folder import JsonLines, RunFolder, rollout_record
from codegym.report.manifest import manifest
from codegym.report.profile import profile_table
from codegym.report.progress import Display
from codegym.report.stored import stored_rollouts
from codegym.report.summary import by_kind, compare, summarise
from codegym.report.table import results_markdown, results_table

__all__ = [
    "Display",
    "JsonLines",
    "RunFolder",
    "by_kind",
    "compare",
    "explain",
    "manifest",
    "model_card",
    "profile_table",
    "results_markdown",
    "results_table",
    "rollout_record",
    "stored_rollouts",
    "summarise",
]
