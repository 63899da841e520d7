"""Offer the policy `transformers`: a model that is evaluated and not trained, also a large one in 8 or 4 bits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from codegym import ConfigError, Example, Finding, Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FILES = ("config.json", "adapter_config.json")
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]


@dataclass
class Transformers(Policy):
    """A causal language model or an adapter of one, to be evaluated: decoded in batches, never trained.

    `model`: a folder in the Hugging Face format, or the name of a model on the hub; it is spread over all GPUs.
    `dtype`: of its weights; "auto" is bfloat16 where there is a GPU, else float32. `quantization`: "none"; "8bit"
    (LLM.int8) and "4bit" (nf4, quantized twice) need less memory, and the extra `quantization`.

    Completions are greedy, the best of a search `num_beams` (1) wide, or sampled at a `temperature` above 0 (0.0) from
    all tokens, with a random state of their own that starts from `seed` (0). What the model's folder recommends for
    generation has no effect. `max_new_tokens` (256) cuts a completion off; `batch_size` (16) prompts are decoded at
    once. `decode`: "generate" is transformers' own; "auto" decodes the same in less time, dropping completions that
    have ended, and is "generate", with a warning, for searches, quantized models and unusual architectures.
    `threads` (0): CPU threads of torch; 0 leaves a core to everything else.
    """

    model: str
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["none", "8bit", "4bit"] = "none"
    num_beams: Count = 1
    temperature: Annotated[float, Field(ge=0)] = 0.0
    seed: CountOrNone = 0
    max_new_tokens: Count = 256
    batch_size: Count = 16
    decode: Literal["auto", "generate"] = "auto"
    threads: CountOrNone = 0

    def __post_init__(self) -> None:
        self._model: PreTrainedModel | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._calls = 0

    def findings(self) -> Iterable[Finding]:
        """Yield an error for a folder without a model, settings that do not go together, a package that is missing."""
        folder = Path(self.model)
        if folder.is_absolute() and not any((folder / name).is_file() for name in FILES):
            yield Finding("error", f"there is no model in {folder} (no config.json); name a folder that has one")
        if self.num_beams > 1 and self.temperature > 0:
            yield Finding(
                "error",
                f"num_beams = {self.num_beams} searches and temperature = {self.temperature} samples; use "
                "num_beams = 1 or temperature = 0.0",
            )
        if self.quantization != "none" and find_spec("bitsandbytes") is None:
            yield Finding(
                "error",
                f'quantization = "{self.quantization}" needs the package bitsandbytes, which is not installed. Install '
                "it with: pip install 'codegym[quantization]'",
            )

    def generate(self, examples: Sequence[Example]) -> list[str]:
        """Return one completion for each example, in order; prompts of similar length share a batch."""
        import torch

        from codegym_grpo import decoding

        model, tokenizer = self._loaded(examples)
        config = decoding.decoding_config(
            self.max_new_tokens,
            decoding.end_tokens(model, tokenizer),
            tokenizer.pad_token_id,
            temperature=self.temperature,
            num_beams=self.num_beams,
        )
        decode = partial(decoding.decode, model, config=config, how=self.decode)
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(self.seed + self._calls)
            self._calls += 1
            try:
                return decoding.complete(tokenizer, [example.prompt for example in examples], self.batch_size, decode)
            except torch.OutOfMemoryError as error:
                raise self._too_small("the prompts") from error

    def close(self) -> None:
        """Let go of the model."""
        self._model = self._tokenizer = None

    def _loaded(self, examples: Sequence[Example]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._model is None or self._tokenizer is None:
            self._model, self._tokenizer = self._load()
        if self._tokenizer.chat_template is None and any(not isinstance(example.prompt, str) for example in examples):
            raise ConfigError(
                f"policy transformers: the prompts are chat messages, but the tokenizer of {self.model} has no chat "
                "template; use a plain text prompt in [dataset], or a chat model"
            )
        return self._model, self._tokenizer

    def _load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        import torch
        import transformers

        from codegym_grpo import decoding, loading

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        loading.set_threads(self.threads)
        cuda = torch.cuda.is_available()
        dtype = ("bfloat16" if cuda else "float32") if self.dtype == "auto" else self.dtype
        placed: dict[str, Any] = {"device_map": "auto"} if cuda else {}
        if self.quantization != "none":
            placed["quantization_config"] = loading.quantized(self.quantization, dtype)
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(self.model, dtype=dtype, **placed)
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.model)
        except torch.OutOfMemoryError as error:
            raise self._too_small("the model") from error
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"policy transformers: cannot load the model {self.model!r} ({str(error).splitlines()[0]}). Set model "
                "to a folder with config.json, weights and tokenizer (a relative path starts with ./), or to a hub name"
            ) from error
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        if self.decode == "auto":
            decoding.tell_obstacle(model, self.num_beams)
        return model.eval(), tokenizer

    def _too_small(self, what: str) -> ConfigError:
        return ConfigError(
            f"policy transformers: the GPU has not enough memory for {what}; use a batch_size below {self.batch_size}, "
            'or quantization = "8bit" or "4bit"'
        )
