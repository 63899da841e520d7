"""Decode and grade the groups of a training step, and replace those whose candidates all earn the same."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import trl

from codegym import Example, Grade, PluginError, Rollout
from codegym_grpo import decoding
from codegym_grpo.callbacks import GRADED, Stopwatch
from codegym_grpo.candidates import candidates_of
from codegym_grpo.sharding import gathered
from codegym_grpo.together import names_anywhere

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import GRPOTrainer

    from codegym_grpo.policy import Grpo


@dataclass
class Group:
    """The candidates of one prompt, graded; `flat` if they all earn the same, so that nothing is learned of them."""

    example: Example
    prompt_ids: list[int]
    completion_ids: list[list[int]]
    rollouts: list[Rollout]
    flat: bool


class Groups:
    """What TRL calls in each generation: `rollout` for candidates, then `reward` for what they earn.

    `asked` are the questions of all generations in the order of the training, `others` those that may replace them.
    Nothing is remembered from one generation to the next, so that a resumed training draws what it would have drawn.
    """

    def __init__(
        self,
        settings: Grpo,
        tokenizer: PreTrainedTokenizerBase,
        asked: Sequence[Example],
        others: Sequence[Example],
        grade: Grade,
        seed: int,
        stopwatch: Stopwatch,
    ) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._asked = asked
        self._by_id = {example.id: example for example in others}
        self._grade = grade
        self._seed = seed
        self._stopwatch = stopwatch
        self._graded: list[Rollout] = []
        self._counts: dict[str, int] = {}

    def rollout(self, prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        """Return the candidates of the prompts, each of which TRL hands over `num_generations` times in a row.

        TRL itself would decode with dropout on, from a policy that nobody evaluates. With `resample_rounds`, they are
        graded here, and the `task_id` of a row that was replaced takes the place of the dataset's.
        """
        size = self._settings.num_generations
        if len(prompts) % size or any(prompt != prompts[row - row % size] for row, prompt in enumerate(prompts)):
            raise PluginError(
                f"policy grpo: TRL {trl.__version__} did not hand over each prompt {size} times in a row, so the "
                "candidates of one question would not be compared with each other. Install: pip install 'trl>=1.8,<2'"
            )
        candidates = self._with_others if self._settings.resample_rounds else self._of_the_asked
        with gathered(self._model(trainer)):
            return candidates(prompts[::size], trainer)

    def _of_the_asked(self, prompts: Sequence[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        prompt_ids = [decoding.token_ids(self._tokenizer, prompt) for prompt in prompts]
        return self._columns(prompt_ids, self._decoded(prompt_ids, trainer))

    def _with_others(self, prompts: Sequence[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        groups = self._of(self._questions(prompts, trainer), trainer)
        self._replace_flat(groups, trainer)
        self._graded = [rollout for group in groups for rollout in group.rollouts]
        completion_ids = [ids for group in groups for ids in group.completion_ids]
        columns = self._columns([group.prompt_ids for group in groups], completion_ids)
        return columns | {"task_id": [rollout.example.id for rollout in self._graded]}

    def reward(
        self, completions: list[Any], task_id: list[str], log_metric: Callable[[str, float], None], **_: Any
    ) -> list[float]:
        """Return one finite number for each completion, what it earned divided by `reward_scale`.

        Logs the mean of each part of the reward, which add up to the mean reward, and of each metric.
        """
        rollouts, self._graded = self._graded, []
        if not rollouts:
            texts = [each if isinstance(each, str) else each[-1]["content"] for each in completions]
            rollouts = self._rollouts([self._by_id[each] for each in task_id], texts)
        rewards = [self._scaled(rollout) for rollout in rollouts]
        found = means(rollouts)
        for name in names_anywhere(found):  # TRL takes the mean over those processes only that log a name
            log_metric(GRADED + name, found.get(name, 0.0))
        size = self._settings.num_generations
        flat = [is_flat(rewards[row : row + size]) for row in range(0, len(rewards), size)]
        log_metric("groups/flat", sum(flat) / len(flat))
        for name, count in self._counts.items():
            log_metric(name, count)
        return rewards

    def _questions(self, prompts: Sequence[Any], trainer: GRPOTrainer) -> list[Example]:
        """Return the questions that TRL is about: it tells their prompts, which two of them may share."""
        process, processes = trainer.accelerator.process_index, trainer.accelerator.num_processes
        start = (self._generation(trainer) * processes + process) * len(prompts)
        questions = list(self._asked[start : start + len(prompts)])
        if [prompt_of(question) for question in questions] != list(prompts):
            raise PluginError(
                f"policy grpo: TRL {trl.__version__} did not take the questions in the order of the training, so their "
                "rewards would be those of others. Install: pip install 'trl>=1.8,<2', or set resample_rounds = 0"
            )
        return questions

    def _replace_flat(self, groups: list[Group], trainer: GRPOTrainer) -> None:
        """Put groups of other questions in the place of flat ones, as far as `resample_rounds` finds any."""
        process, processes = trainer.accelerator.process_index, trainer.accelerator.num_processes
        drawn, replaced = 0, 0
        others = islice(self._drawn(trainer), process, None, processes)  # no question in two processes
        for _ in range(self._settings.resample_rounds):
            flat = [place for place, group in enumerate(groups) if group.flat]
            questions = list(islice(others, len(flat)))
            if not questions:
                break
            found = [group for group in self._of(questions, trainer) if not group.flat]
            for place, group in zip(flat, found, strict=False):
                groups[place] = group
            drawn, replaced = drawn + len(questions), replaced + len(found)
        # TRL logs the mean over the processes
        self._counts = {"groups/drawn": drawn * processes, "groups/replaced": replaced * processes}

    def _drawn(self, trainer: GRPOTrainer) -> Iterator[Example]:
        """Yield the questions that this generation does not ask, in an order of its own."""
        generation, size = self._generation(trainer), self._settings.prompts_per_step
        asked = {example.id for example in self._asked[generation * size : (generation + 1) * size]}
        order = random.Random(f"{self._seed} {generation}")
        return (each for each in order.sample(list(self._by_id.values()), len(self._by_id)) if each.id not in asked)

    def _generation(self, trainer: GRPOTrainer) -> int:
        return int(trainer.state.global_step) // self._settings.num_iterations

    def _of(self, questions: Sequence[Example], trainer: GRPOTrainer) -> list[Group]:
        size = self._settings.num_generations
        prompt_ids = [decoding.token_ids(self._tokenizer, question.prompt) for question in questions]
        completion_ids = self._decoded(prompt_ids, trainer)
        texts = self._tokenizer.batch_decode(completion_ids, skip_special_tokens=True)
        rollouts = self._rollouts([question for question in questions for _ in range(size)], texts)
        groups = []
        for number, question in enumerate(questions):
            rows = slice(number * size, (number + 1) * size)
            flat = is_flat([self._scaled(rollout) for rollout in rollouts[rows]])
            groups.append(Group(question, prompt_ids[number], completion_ids[rows], rollouts[rows], flat))
        return groups

    def _decoded(self, prompt_ids: list[list[int]], trainer: GRPOTrainer) -> list[list[int]]:
        model = self._model(trainer)
        with self._stopwatch.phase("generate"), decoding.evaluation_mode(model):
            return candidates_of(self._settings, model, self._tokenizer)(prompt_ids)

    def _model(self, trainer: GRPOTrainer) -> PreTrainedModel:
        model: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.model)
        return model

    def _rollouts(self, examples: Sequence[Example], texts: Sequence[str]) -> list[Rollout]:
        with self._stopwatch.phase("execute"):
            rollouts = self._grade(examples, texts)
        if len(rollouts) != len(texts) or not all(math.isfinite(rollout.reward) for rollout in rollouts):
            raise PluginError(f"policy grpo: {len(texts)} completions need as many finite rewards from the grader")
        return rollouts

    def _scaled(self, rollout: Rollout) -> float:
        return sixteen_bits(rollout.reward / self._settings.reward_scale)

    def _columns(self, prompt_ids: list[list[int]], completion_ids: list[list[int]]) -> dict[str, Any]:
        repeated = [ids for ids in prompt_ids for _ in range(self._settings.num_generations)]
        return {"prompt_ids": repeated, "completion_ids": completion_ids, "logprobs": None}


def prompt_of(example: Example) -> str | list[dict[str, str]]:
    """Return the prompt as TRL takes it."""
    if isinstance(example.prompt, str):
        return example.prompt
    return [{"role": message["role"], "content": message["content"]} for message in example.prompt]


def is_flat(rewards: Sequence[float]) -> bool:
    """Return whether all rewards of a group are the same."""
    return min(rewards) == max(rewards)


def means(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Return the mean of each part of the reward and of each metric."""
    sums: Counter[str] = Counter()
    for rollout in rollouts:
        sums.update(rollout.scores)
        sums.update(rollout.metrics)
    return {name: total / len(rollouts) for name, total in sums.items()}


def sixteen_bits(reward: float) -> float:
    """Return the reward with 16 significant bits.

    Float32 then sums a group without rounding: equal rewards have an advantage of exactly 0, and noise in the last
    digits of a large reward, which division by the group's spread would blow up, is no preference.
    """
    mantissa, exponent = math.frexp(reward)
    return math.ldexp(round(mantissa * 2**16), exponent - 16)
