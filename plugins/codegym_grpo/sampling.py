"""Sample completions as a training would draw them, outside of one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from codegym import Example
from codegym_grpo import decoding

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from codegym_grpo.policy import Grpo


def samples(
    settings: Grpo, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], seed: int
) -> list[str]:
    """Return one sample for each example, in order: of all tokens, at `temperature`, also where candidates are beams.

    Repeats of an example that stand in a row share the reading of its prompt, where all have as many. At most
    `eval_batch` completions are decoded at once. The global random state is left as it is.
    """
    repeats = {sum(1 for _ in members) for _, members in groupby(examples, key=lambda example: example.id)}
    copies = min(repeats) if len(repeats) == 1 else 1
    prompts = [decoding.token_ids(tokenizer, example.prompt) for example in examples[::copies]]
    longest_first = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    ends = decoding.end_tokens(model, tokenizer)
    config = decoding.decoding_config(
        settings.max_completion_tokens, ends, tokenizer.pad_token_id, temperature=settings.temperature, copies=copies
    )
    at_once = max(1, settings.eval_batch // copies)
    texts: dict[int, list[str]] = {}
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        for start in range(0, len(prompts), at_once):
            indices = longest_first[start : start + at_once]
            decoded = decoding.decode(model, [prompts[index] for index in indices], config, settings.decode)
            written = tokenizer.batch_decode(decoded, skip_special_tokens=True)
            texts |= {index: written[row * copies : (row + 1) * copies] for row, index in enumerate(indices)}
    return [text for index in range(len(prompts)) for text in texts[index]]
