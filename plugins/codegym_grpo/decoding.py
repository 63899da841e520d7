"""Load causal language models and decode them greedily, alike for every policy of this plugin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from codegym import Message


def load(model: str, dtype: str = "float32") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model and the tokenizer of a folder or hub name, ready for `generate_greedy`.

    `dtype` is a torch dtype by name, or `"auto"` for the one of the saved weights. The tokenizer pads on the left, with
    its end-of-sequence token if it has no pad token of its own.
    """
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
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
    # Every field that the model's folder may recommend, such as a penalty for repetition, is set: it would change what
    # is measured. transformers fills from the folder only what is not.
    config = GenerationConfig(
        do_sample=False,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        length_penalty=1.0,
        eos_token_id=end_tokens(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        disable_compile=True,
    )
    with evaluation_mode(model), torch.inference_mode():
        for start in range(0, len(prompts), batch_size):
            indices = longest_first[start : start + batch_size]
            batch = tokenizer.pad(
                {"input_ids": [prompt_ids[index] for index in indices]}, padding_side="left", return_tensors="pt"
            ).to(model.device)
            sequences = model.generate(**batch, generation_config=config)  # type: ignore[operator]
            texts = tokenizer.batch_decode(sequences[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            for index, text in zip(indices, texts, strict=True):
                completions[index] = text
    return completions
