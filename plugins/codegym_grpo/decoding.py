"""Load causal language models and decode them, alike for every policy of this plugin."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, GenerationConfig, GenerationMixin
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

    from codegym import Message

PREPARE = "prepare_inputs_for_generation"
logger = logging.getLogger(__name__)


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
    inner = without_adapter(model)
    recommended, inner.generation_config = inner.generation_config, GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = recommended


def without_adapter(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model that an adapter is around, or the model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


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


def decoding_config(
    max_new_tokens: int,
    eos_token_ids: Sequence[int],
    pad_token_id: int,
    *,
    temperature: float = 0.0,
    num_beams: int = 1,
    copies: int = 1,
) -> GenerationConfig:
    """Return what decodes `copies` completions of each prompt, none left to the recommendations of a model's folder.

    They are samples of all tokens at a temperature above 0, or the best of a search `num_beams` wide by the mean
    log-probability of their tokens, or the likeliest token at each step.
    """
    sampling: dict[str, Any] = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    searching: dict[str, Any] = {"length_penalty": 1.0, "early_stopping": False} if num_beams > 1 else {}
    return GenerationConfig(
        do_sample=temperature > 0,
        num_beams=num_beams,
        num_return_sequences=copies,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(eos_token_ids),
        pad_token_id=pad_token_id,
        **sampling,
        **searching,
    )


def generate_greedy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[Message]],
    max_new_tokens: int = 256,
    batch_size: int = 32,
    num_beams: int = 1,
    how: str = "generate",
) -> list[str]:
    """Return one completion per prompt, in order: the likeliest token at each step, or the best of `num_beams` beams.

    Dropout is off, no gradient is kept and the global random state is not touched, so that decoding in the middle of a
    training changes nothing in it.
    """
    ends = end_tokens(model, tokenizer)
    config = decoding_config(max_new_tokens, ends, tokenizer.pad_token_id, num_beams=num_beams)
    return complete(tokenizer, prompts, batch_size, lambda batch: decode(model, batch, config, how))


def complete(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[Message]],
    batch_size: int,
    decode: Callable[[list[list[int]]], list[list[int]]],
) -> list[str]:
    """Return one completion per prompt, in order; prompts of similar length share a batch, so that little is padded."""
    prompt_ids = [token_ids(tokenizer, prompt) for prompt in prompts]
    longest_first = sorted(range(len(prompts)), key=lambda index: -len(prompt_ids[index]))
    completions = [""] * len(prompts)
    for start in range(0, len(prompts), batch_size):
        indices = longest_first[start : start + batch_size]
        decoded = decode([prompt_ids[index] for index in indices])
        for index, text in zip(indices, tokenizer.batch_decode(decoded, skip_special_tokens=True), strict=True):
            completions[index] = text
    return completions


def decode(
    model: PreTrainedModel, prompt_ids: Sequence[Sequence[int]], config: GenerationConfig, how: str
) -> list[list[int]]:
    """Return the completions of each prompt, those of one after those of another: always the same ones.

    They are decoded by `generate` if `how` is "generate" or there is an `obstacle`, and else in less time.
    """
    if how != "generate" and obstacle(model, config.num_beams) is None:
        return decode_shared(model, prompt_ids, config)
    return generate(model, prompt_ids, config)


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


@torch.inference_mode()
def decode_shared(
    model: PreTrainedModel, prompt_ids: Sequence[Sequence[int]], config: GenerationConfig
) -> list[list[int]]:
    """Return what `generate` does, token for token, also when it samples, for models that have no `obstacle`.

    Each prompt is read once for all of its completions, and a completion that has ended costs nothing more. The
    log-probabilities differ in their last digits, so a token can differ where two are equally likely.
    """
    ids, mask = left_padded(prompt_ids, config.pad_token_id, model.device)
    copies = config.num_return_sequences
    cache = DynamicCache(config=without_adapter(model).config)
    ends = torch.tensor(config.eos_token_id, device=ids.device)
    with evaluation_mode(model):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cached = {"past_key_values": cache, "use_cache": True}
        output = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, **cached)
        logits = output.logits[:, -1].repeat_interleave(copies, 0)
        cache.batch_repeat_interleave(copies)
        mask = mask.repeat_interleave(copies, 0)
        rows = torch.arange(len(mask), device=ids.device)
        completions: list[list[int]] = [[] for _ in rows]
        for length in range(1, config.max_new_tokens + 1):
            tokens = _chosen(logits, rows, len(completions), config)
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
                completions[row].append(token)
            going = (~torch.isin(tokens, ends)).nonzero()[:, 0]
            if not len(going) or length == config.max_new_tokens:
                break
            if len(going) < len(rows):
                cache.batch_select_indices(going)
                rows, tokens, mask = rows[going], tokens[going], mask[going]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            positions = mask.sum(-1, keepdim=True) - 1
            output = model(input_ids=tokens[:, None], attention_mask=mask, position_ids=positions, **cached)
            logits = output.logits[:, -1]
    return completions


def obstacle(model: PreTrainedModel, num_beams: int = 1) -> str | None:
    """Return why `decode_shared` might not decode what `generate` does, or None if it does."""
    inner = without_adapter(model)
    name = type(inner).__name__
    if num_beams > 1:
        return "a beam search is always transformers' own"
    if getattr(inner, "quantization_method", None) is not None:
        return "quantized layers compute a row differently in another batch"
    if len(set(getattr(inner, "hf_device_map", {}).values())) > 1:
        return "the model is spread over several devices"
    if getattr(type(inner), PREPARE, None) is not getattr(GenerationMixin, PREPARE):
        return f"{name} prepares its inputs for decoding in its own way"
    missing = {"position_ids", "past_key_values", "logits_to_keep"} - inspect.signature(inner.forward).parameters.keys()
    if missing:
        return f"{name} takes no {' or '.join(sorted(missing))}"
    other = {type(layer).__name__ for layer in DynamicCache(config=inner.config).layers}
    other -= {DynamicLayer.__name__, DynamicSlidingWindowLayer.__name__}
    if other or inner.config.is_encoder_decoder:
        return f"{name} keeps another cache than of keys and values"
    if any(kind in str(getattr(inner.config, "rope_parameters", None)) for kind in ("'dynamic'", "'longrope'")):
        return f"the positions of {name} depend on the longest row of a batch"
    return None


def tell_obstacle(model: PreTrainedModel, num_beams: int) -> None:
    """Warn if `decode = "auto"` is no faster than "generate" with this model."""
    if reason := obstacle(model, num_beams):
        logger.warning(
            'decode = "auto" falls back to transformers\' generate: %s. decode = "generate" does it without a warning',
            reason,
        )


def left_padded(
    prompt_ids: Sequence[Sequence[int]], pad_token_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the token ids, padded on the left to one length, and the mask of what is not padding."""
    width = max(map(len, prompt_ids))
    ids = [[pad_token_id] * (width - len(row)) + list(row) for row in prompt_ids]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in prompt_ids]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _chosen(logits: torch.Tensor, rows: torch.Tensor, count: int, config: GenerationConfig) -> torch.Tensor:
    if not config.do_sample:
        return logits.argmax(-1)
    chances = torch.ones(count, logits.shape[-1], device=logits.device)  # what has ended draws too, as in `generate`
    chances[rows] = (logits.float() / config.temperature).softmax(-1)
    return torch.multinomial(chances, 1)[rows, 0]


def _until_end(token_ids: list[int], end_token_ids: Sequence[int]) -> list[int]:
    ends = [index for index, token in enumerate(token_ids) if token in end_token_ids]
    return token_ids[: ends[0] + 1] if ends else token_ids
