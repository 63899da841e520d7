"""Train a small Llama and its tokenizer from scratch on examples that carry their target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from codegym import Example

if TYPE_CHECKING:
    from codegym_grpo.supervised_policy import Supervised

END, PAD = "<end>", "<pad>"
NAME = Regex(r"\p{Lu}\p{Ll}+(?:-\p{L}+)*")
IGNORED = -100
"""Label of a token that the loss leaves out: PyTorch's default."""

REPORTED = ("loss", "learning_rate", "grad_norm")

Log = Callable[[int, int, Mapping[str, float]], None]


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of `vocabulary` tokens that adds no special tokens of its own.

    Tokens may span words, so that a long phrase that always comes alike, such as a chain of joins, is one token. Digits
    stand alone, and so do names, words with one capital: a name is cut up alike in a question and in a query, and
    a model can copy it token by token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(NAME, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def new_model(settings: Supervised, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return a Llama with random weights in the size of the settings."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=settings.mlp,
        max_position_embeddings=settings.positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def encoded(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast, positions: int
) -> list[dict[str, list[int]]]:
    """Return token ids of prompt, target and end, and labels that are the target and end only.

    Examples of more than `positions` tokens are left out.
    """
    prompts = tokenizer([str(example.prompt) for example in examples])["input_ids"]
    targets = tokenizer([example.metadata["target"] + END for example in examples])["input_ids"]
    return [
        {"input_ids": prompt + target, "labels": [IGNORED] * len(prompt) + target}
        for prompt, target in zip(prompts, targets, strict=True)
        if len(prompt) + len(target) <= positions
    ]


def collator(pad: int) -> Callable[[list[dict[str, list[int]]]], dict[str, torch.Tensor]]:
    """Return a function that pads rows on the right to the longest of a batch."""

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)

        def padded(key: str, filler: int) -> torch.Tensor:
            return torch.tensor([row[key] + [filler] * (longest - len(row[key])) for row in rows])

        return {"input_ids": padded("input_ids", pad), "labels": padded("labels", IGNORED)}

    return collate


class Report(TrainerCallback):
    """Passes the trainer's figures on to the run."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:  # type: ignore[no-untyped-def]
        """Report loss, learning rate and gradient norm of one step."""
        values = {name: float(value) for name, value in (logs or {}).items() if name in REPORTED}
        if values:
            self.log(state.global_step, state.max_steps, values)


def fit(
    settings: Supervised, examples: Sequence[Example], folder: Path, seed: int, log: Log
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Return a model and a tokenizer trained on the examples, once through, batches of similar length together.

    The learning rate rises over `warmup_steps` and falls along a cosine to zero.
    """
    set_seed(seed)
    read = examples[: settings.tokenizer_examples]
    texts = [text for example in read for text in (str(example.prompt), example.metadata["target"])]
    tokenizer = train_tokenizer(texts, settings.vocabulary)
    model = new_model(settings, tokenizer)
    rows = encoded(examples, tokenizer, settings.positions)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        num_train_epochs=1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_steps,
        weight_decay=0.01,
        max_grad_norm=1.0,
        train_sampling_strategy="group_by_length",
        logging_steps=settings.log_every_steps,
        save_strategy="no",
        report_to="none",
        dataloader_pin_memory=False,
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
        remove_unused_columns=False,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=collator(tokenizer.pad_token_id),
        callbacks=[Report(log)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    model.config.use_cache = True  # the trainer turns it off, and the saved model would decode without it
    return model, tokenizer
