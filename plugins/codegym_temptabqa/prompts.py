"""Word the prompt: schema and question in, SQL out."""

from __future__ import annotations

from collections.abc import Sequence

from codegym import Message
from codegym_temptabqa.schema import SCHEMA

DEFAULT_PROMPT = """### Task
Write one SQL query that answers the question. `medal.type` is 'Gold', 'Silver' or 'Bronze'.

### Database schema
{schema}

### Question
{question}

### SQL
"""
"""The paper's setting. `{schema}` and `{question}` are filled in; other braces stay as they are."""

DEFAULT_SYSTEM = "You write SQL. Answer with one query and nothing else."


def schema_text() -> str:
    """Return the `CREATE TABLE` statements of `SCHEMA`; the indexes tell a model nothing."""
    statements = (statement.strip() for statement in SCHEMA.split(";"))
    return "\n".join(f"{statement};" for statement in statements if statement.startswith("CREATE TABLE"))


def build_prompt(template: str, question: str, chat: bool = False, system: str = "") -> str | Sequence[Message]:
    """Return the prompt for one question: text, or with `chat` a user message after the system's, if there is one."""
    text = template.replace("{schema}", schema_text()).replace("{question}", question)
    if not chat:
        return text
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    return [*messages, {"role": "user", "content": text}]
