"""Load causal language models and decode them, alike for every policy of this plugin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

    from codegym import Message


def load(
    model: str, dtype: str = "float32", quantized: BitsAndBytesConfig | None = None, device: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model and the tokenizer of a folder or hub name, ready for `generate_greedy`.

    `dtype` is a torch dtype by name, or `"auto"` for the one of the saved weights. A model that is to be quantized is
    loaded straight onto its device, for it cannot be moved. The tokenizer pads on the left, with its end-of-sequence
    token if it has no pad token of its own.
    """
    placed = {} if quantized is None else {"quantization_config": quantized, "device_map": {"": device}}
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, **placed)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return loaded, tokenizer


@contextmanager
def evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off inside the `with` block, and back afterwards if it was on."""
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def without_recommendations(model: PreTrainedModel) -> Iterator[None]:
    """Hide the generation settings that come with the model, such as a penalty for repetition, inside the `with` block.

    transformers fills every field that a caller leaves open from them, those that are off by being None included.
    """
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    recommended, inner.generation_config = inner.generation_config, GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = recommended


def token_ids(tokenizer: PreTrainedTokenizerBase, prompt: str | Sequence[Message]) -> list[int]:
    """Return what the model reads: plain text with its special tokens, messages through the chat template."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    messages = [{"role": message["role"], "content": message["content"]} for message in prompt]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return all tokens that end a completion: the tokenizer's, and those that the model declares."""
    declared = model.generation_config.eos_token_id
    declared = [] if declared is None else [declared] if isinstance(declared, int) else declared
    return list(dict.fromkeys([tokenizer.eos_token_id, *declared]))


def generate_greedy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[Message]],
    max_new_tokens: int = 256,
    batch_size: int = 32,
    num_beams: int = 1,
) -> list[str]:
    """Return one completion per prompt, in order: the likeliest token at each step, or the best of `num_beams` beams.

    Prompts of similar length share a batch, so that little is padded. Dropout is off, no gradient is kept and the
    global random state is not touched, so that decoding in the middle of a training changes nothing in it.
    """
    prompt_ids = [token_ids(tokenizer, prompt) for prompt in prompts]
    longest_first = sorted(range(len(prompts)), key=lambda index: -len(prompt_ids[index]))
    completions = [""] * len(prompts)
    config = GenerationConfig(
        do_sample=False,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        eos_token_id=end_tokens(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    for start in range(0, len(prompts), batch_size):
        indices = longest_first[start : start + batch_size]
        decoded = generate(model, [prompt_ids[index] for index in indices], config)
        for index, text in zip(indices, tokenizer.batch_decode(decoded, skip_special_tokens=True), strict=True):
            completions[index] = text
    return completions


def generate(model: PreTrainedModel, prompt_ids: Sequence[Sequence[int]], config: GenerationConfig) -> list[list[int]]:
    """Return completions by transformers' `generate`, each up to and with its first end token, so never empty.

    Dropout is off and no gradient is kept. Nothing that the model's folder recommends has an effect: what `config`
    leaves open is transformers' default, which for a search or greedy decoding changes no score.
    """
    ids, mask = left_padded(prompt_ids, config.pad_token_id, model.device)
    config.use_cache = config.disable_compile = True
    with evaluation_mode(model), without_recommendations(model), torch.no_grad():
        sequences = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)  # type: ignore[operator]
    return [_until_end(row, config.eos_token_id) for row in sequences[:, ids.shape[1] :].tolist()]


def left_padded(
    prompt_ids: Sequence[Sequence[int]], pad_token_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the token ids, padded on the left to one length, and the mask of what is not padding."""
    width = max(map(len, prompt_ids))
    ids = [[pad_token_id] * (width - len(row)) + list(row) for row in prompt_ids]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in prompt_ids]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _until_end(token_ids: list[int], end_token_ids: Sequence[int]) -> list[int]:
    ends = [index for index, token in enumerate(token_ids) if token in end_token_ids]
    return token_ids[: ends[0] + 1] if ends else token_ids
