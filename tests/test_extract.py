"""Code is what a completion means by code, however a model wraps it."""

from __future__ import annotations

import pytest

from codegym.extract import extract


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("SELECT 1", "SELECT 1"),
        ("  SELECT 1;\n\n", "SELECT 1;"),
        ("", ""),
        ("```sql\n```", ""),
        ("```sql\nSELECT 1\n```", "SELECT 1"),
        ("```\nSELECT 1\n```", "SELECT 1"),
        ("``` SQL \nSELECT 1\n```", "SELECT 1"),
        ("```SELECT 1```", "SELECT 1"),
        ("```sql\r\nSELECT 1\r\n```", "SELECT 1"),
        ("Here it is:\n```sql\nSELECT 1\n```\nIt returns one.", "SELECT 1"),
        ("First ```sql\nSELECT 1\n``` or better ```sql\nSELECT 2\n```", "SELECT 2"),
        ("```sql\nSELECT 1\n``` and ```\n```", "SELECT 1"),
        ("```sql\nSELECT 1", "SELECT 1"),
        ("<think>SELECT 0? ```sql\nSELECT 0\n```</think>SELECT 1", "SELECT 1"),
        ("<think>never closed: SELECT 0", ""),
        ("the opening tag stood in the prompt</think>\nSELECT 1", "SELECT 1"),
        ("SELECT '<think>' AS tag", "SELECT '<think>' AS tag"),
        ("SELECT `name` FROM athlete", "SELECT `name` FROM athlete"),
    ],
)
def test_code_is_found(completion: str, code: str) -> None:
    assert extract(completion) == code
