"""Decode groups of candidates for a training step, sampled or from a beam search, and decode fast for small models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache, GenerationConfig

from codegym_grpo import decoding

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from codegym import Message
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
    sampler = Sampler(settings.num_generations, length, settings.temperature, eos_token_ids=ends, pad_token_id=pad)
    return partial(sampler.shared if settings.decode == "shared" else sampler.generate, model)


@dataclass(frozen=True)
class Sampler:
    """Samples groups of completions at `temperature`, from the global random state of torch.

    A completion ends with one of `eos_token_ids` or is cut off after `max_new_tokens`.
    """

    num_generations: int
    max_new_tokens: int
    temperature: float
    eos_token_ids: Sequence[int]
    pad_token_id: int

    def generate(self, model: PreTrainedModel, prompt_ids: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return `num_generations` completions of each prompt, group after group, by transformers' `generate`."""
        config = GenerationConfig(
            do_sample=True,
            temperature=self.temperature,
            top_k=0,
            top_p=1.0,
            num_return_sequences=self.num_generations,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=list(self.eos_token_ids),
            pad_token_id=self.pad_token_id,
        )
        return decoding.generate(model, prompt_ids, config)

    def shared(self, model: PreTrainedModel, prompt_ids: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return what `generate` does, other samples of the same distribution, in less time for small models."""
        return decode_shared(
            model,
            *decoding.left_padded(prompt_ids, self.pad_token_id, model.device),
            copies=self.num_generations,
            max_new_tokens=self.max_new_tokens,
            eos_token_ids=self.eos_token_ids,
            choose=lambda logits: torch.multinomial((logits.float() / self.temperature).softmax(-1), 1)[:, 0],
        )


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
    config = GenerationConfig(
        do_sample=False,
        num_beams=width,
        num_return_sequences=kept,
        length_penalty=1.0,
        early_stopping=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(eos_token_ids),
        pad_token_id=pad_token_id,
    )
    return decoding.generate(model, prompt_ids, config)


def generate_greedy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[Message]],
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """Return what `decoding.generate_greedy` does, in less time for small models."""
    prompt_ids = [decoding.token_ids(tokenizer, prompt) for prompt in prompts]
    longest_first = sorted(range(len(prompts)), key=lambda index: -len(prompt_ids[index]))
    completions = [""] * len(prompts)
    for start in range(0, len(prompts), batch_size):
        indices = longest_first[start : start + batch_size]
        with decoding.evaluation_mode(model):
            decoded = decode_shared(
                model,
                *decoding.left_padded([prompt_ids[index] for index in indices], tokenizer.pad_token_id, model.device),
                copies=1,
                max_new_tokens=max_new_tokens,
                eos_token_ids=decoding.end_tokens(model, tokenizer),
                choose=lambda logits: logits.argmax(-1),
            )
        for index, text in zip(indices, tokenizer.batch_decode(decoded, skip_special_tokens=True), strict=True):
            completions[index] = text
    return completions


@torch.inference_mode()
def decode_shared(
    model: PreTrainedModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    *,
    copies: int,
    max_new_tokens: int,
    eos_token_ids: Sequence[int],
    choose: Callable[[torch.Tensor], torch.Tensor],
) -> list[list[int]]:
    """Return `copies` completions of each left-padded prompt, which is read once; what has ended costs nothing more.

    `choose` picks a token for each row of logits. Works with models whose cache is a `DynamicCache`.
    """
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    output = model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1)
    cache.batch_repeat_interleave(copies)
    logits = output.logits[:, -1].repeat_interleave(copies, 0)
    mask = mask.repeat_interleave(copies, 0)
    ends = torch.tensor(eos_token_ids, device=ids.device)
    rows = torch.arange(len(mask), device=ids.device)
    completions: list[list[int]] = [[] for _ in rows]
    for _ in range(max_new_tokens):
        tokens = choose(logits)
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            completions[row].append(token)
        going = (~torch.isin(tokens, ends)).nonzero()[:, 0]
        if not len(going):
            break
        if len(going) < len(rows):
            cache.batch_select_indices(going)
            rows, tokens, mask = rows[going], tokens[going], mask[going]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = mask.sum(-1, keepdim=True) - 1
        output = model(input_ids=tokens[:, None], attention_mask=mask, position_ids=positions, past_key_values=cache)
        logits = output.logits[:, -1]
    return completions
