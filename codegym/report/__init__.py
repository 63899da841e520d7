"""Keep and show what a run found out."""

from codegym.report.audit import audit_advice, audit_record, audit_table
from codegym.report.card import model_card
from codegym.report.disagreements import Disagreement, Disagreements, disagreements_examples, disagreements_tables
from codegym.report.explain import explain
from codegym.report.folder import JsonLines, RunFolder
from codegym.report.gold import gold_table
from codegym.report.manifest import manifest
from codegym.report.page import page, write_page
from codegym.report.profile import profile_table
from codegym.report.progress import Display
from codegym.report.rescored import differences, rescore_tables
from codegym.report.stored import Stored, rollout_record, stored, stored_rollouts
from codegym.report.summary import by_kind, compare, summarise, worth
from codegym.report.table import results_markdown, results_table

__all__ = [
    "Disagreement",
    "Disagreements",
    "Display",
    "JsonLines",
    "RunFolder",
    "Stored",
    "audit_advice",
    "audit_record",
    "audit_table",
    "by_kind",
    "compare",
    "differences",
    "disagreements_examples",
    "disagreements_tables",
    "explain",
    "gold_table",
    "manifest",
    "model_card",
    "page",
    "profile_table",
    "rescore_tables",
    "results_markdown",
    "results_table",
    "rollout_record",
    "stored",
    "stored_rollouts",
    "summarise",
    "worth",
    "write_page",
]
