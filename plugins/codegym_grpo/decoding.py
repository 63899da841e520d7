"""Load causal language models and decode them greedily, alike for every policy of this plugin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

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
    with evaluation_mode(model), torch.inference_mode():
        for start in range(0, len(prompts), batch_size):
            indices = longest_first[start : start + batch_size]
            batch = tokenizer.pad(
                {"input_ids": [prompt_ids[index] for index in indices]}, padding_side="left", return_tensors="pt"
            ).to(model.device)
            sequences = model.generate(  # type: ignore[operator]
                **batch,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=num_beams,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.pad_token_id,
            )
            texts = tokenizer.batch_decode(sequences[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            for index, text in zip(indices, texts, strict=True):
                completions[index] = text
    return completions
