"""Decode groups of candidates for a training step, sampled or from a beam search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from codegym_grpo import decoding

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from codegym_grpo.policy import Grpo


def candidates_of(
    settings: Grpo, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Callable[[list[list[int]]], list[list[int]]]:
    """Return what turns prompts into `num_generations` completions of each, group after group, in token ids."""
    ends, pad, length = decoding.end_tokens(model, tokenizer), tokenizer.pad_token_id, settings.max_completion_tokens
    if settings.candidates == "beam":
        return partial(
            best_beams,
            model,
            width=settings.candidate_beams,
            kept=settings.num_generations,
            max_new_tokens=length,
            eos_token_ids=ends,
            pad_token_id=pad,
        )
    config = decoding.decoding_config(
        length, ends, pad, temperature=settings.temperature, copies=settings.num_generations
    )
    return partial(decoding.decode, model, config=config, how=settings.decode)


def best_beams(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    *,
    width: int,
    kept: int,
    max_new_tokens: int,
    eos_token_ids: Sequence[int],
    pad_token_id: int,
) -> list[list[int]]:
    """Return the `kept` best completions of each prompt, different ones, from one search `width` beams wide.

    Group after group, the best of a group first: by the mean log-probability of its tokens, as transformers ranks them.
    """
    config = decoding.decoding_config(max_new_tokens, eos_token_ids, pad_token_id, num_beams=width, copies=kept)
    return decoding.generate(model, prompt_ids, config)
