"""Write the model card of a trained policy, in the form that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, StrictUndefined

from codegym.report.table import results_markdown

_CARD = """---
library_name: {{ library }}
tags: [codegym, reinforcement-learning, code]
---
# {{ report.name }}

Trained by codegym {{ manifest.versions.codegym }} from `{{ resolved.policy.get("model", "nothing") }}`
with the policy `{{ resolved.policy.plugin }}` on the split `{{ resolved.training.split }}` of the dataset
`{{ resolved.dataset.plugin }}` ({{ manifest.started }}, seed {{ manifest.seed }}). Code was executed on
`{{ resolved.backend.plugin }}`; rewards:
{% for label in resolved.rewards %}`{{ label }}`{{ ", " if not loop.last }}{% endfor %}.

{% if resolved.note %}{{ resolved.note }}

{% endif %}Before → after training, in percent, 95 % intervals of the last figure in brackets:

{{ table }}
The run file is `run.toml` and the versions are in `manifest.json`, both in the folder above this one. The figures hold
for this data, this backend and these rewards, and say nothing of other questions.
"""


def model_card(report: Mapping[str, Any], manifest: Mapping[str, Any], resolved: Mapping[str, Any]) -> str:
    """Return the card: what was trained from what, on what, and with which results."""
    library = "transformers" if resolved["policy"].get("full_finetune", True) else "peft"
    template = Environment(undefined=StrictUndefined, autoescape=False).from_string(_CARD)  # Markdown, no HTML
    return template.render(
        report=report, manifest=manifest, resolved=resolved, table=results_markdown(report), library=library
    )
