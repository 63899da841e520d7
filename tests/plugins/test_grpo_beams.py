from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_runs import END, EXAMPLES, SMALL, Run, grade, grade_lateness, rebuilt, tiny_model
from transformers import AutoModelForCausalLM

from codegym import ConfigError, Example, PluginError, Rollout, TrainingJob
from codegym_grpo import candidates, decoding, groups, trainer
from codegym_grpo.policy import Grpo

BEAM = SMALL | {"candidates": "beam", "candidate_beams": 4, "num_generations": 2, "micro_batch": 4}
PROMPTS = [[2, 3, 4], [5], [2, 2, 2, 2, 2, 2], [9, 8]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("base"))


def beams(model: Any, prompts: Sequence[Sequence[int]], width: int = 4, kept: int = 2, tokens: int = 6) -> list[Any]:
    settings = {"max_new_tokens": tokens, "eos_token_ids": [END], "pad_token_id": 1}
    return candidates.best_beams(model, prompts, width=width, kept=kept, **settings)


def log_probabilities(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> torch.Tensor:
    """Return those of a completion's tokens, by one forward pass without padding or cache."""
    logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0]


def test_every_prompt_is_searched_once_and_has_distinct_candidates_the_best_first(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched, groups = [], []
    search = candidates.best_beams

    def spy(model: Any, prompts: Sequence[Sequence[int]], **settings: Any) -> list[list[int]]:
        searched.append(len(prompts))
        assert not model.training
        found = search(model, prompts, **settings)
        for row, prompt in enumerate(prompts):
            group = found[2 * row : 2 * row + 2]
            groups.append(group)
            with decoding.evaluation_mode(model), torch.no_grad():
                best, second = (log_probabilities(model, prompt, each).mean() for each in group)
            assert best >= second - 1e-6
        return found

    monkeypatch.setattr(candidates, "best_beams", spy)
    run = Run(Grpo(base, **BEAM, learning_rate=0.01, epochs=2), tmp_path)
    assert searched == [4] * 4
    assert len(run.log) == 4
    assert all(len({tuple(each) for each in group}) == 2 for group in groups)
    assert all(each and END not in each[:-1] for group in groups for each in group)
    assert run.policy._model.training is False


def test_the_candidates_are_the_best_of_all_completions_when_the_search_is_wide_enough(base: str) -> None:
    model, _ = decoding.load(base)
    model.eval()
    everything = [[END], *([first, second] for first in range(1, 16) for second in range(16))]
    with torch.no_grad():
        score = {tuple(each): float(log_probabilities(model, [2, 3], each).mean()) for each in everything}
    best = sorted(score, key=lambda each: -score[each])[:5]
    assert [tuple(each) for each in beams(model, [[2, 3]], width=16, kept=5, tokens=2)] == best


@pytest.mark.parametrize(("width", "kept", "tokens"), [(4, 2, 1), (2, 2, 6), (8, 8, 12), (4, 4, 2)])
def test_no_two_beams_are_alike_and_none_is_empty(base: str, width: int, kept: int, tokens: int) -> None:
    model, _ = decoding.load(base)
    model.lm_head.weight.data[END] += 0.3 * torch.randn(32, generator=torch.Generator().manual_seed(1))
    found = beams(model, PROMPTS, width, kept, tokens)
    assert len(found) == len(PROMPTS) * kept
    for row in range(len(PROMPTS)):
        group = found[row * kept : (row + 1) * kept]
        assert len({tuple(each) for each in group}) == kept
        assert all(1 <= len(each) <= tokens for each in group)


def test_a_prompt_has_the_same_beams_alone_and_among_longer_ones(base: str) -> None:
    model, _ = decoding.load(base)
    alone = [each for prompt in PROMPTS for each in beams(model, [prompt])]
    assert beams(model, PROMPTS) == alone


def test_nothing_that_the_models_folder_recommends_changes_the_candidates(base: str, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "model")
    recommended = {
        **{"do_sample": True, "temperature": 5.0, "repetition_penalty": 10.0, "no_repeat_ngram_size": 1},
        **{"length_penalty": 9.0, "early_stopping": True, "min_new_tokens": 4, "suppress_tokens": [3, 4, 5]},
        **{"bad_words_ids": [[6], [7]], "sequence_bias": [[[8], 9.0]], "forced_eos_token_id": 0, "top_k": 1},
        **{"exponential_decay_length_penalty": [1, 9.0], "use_cache": False, "renormalize_logits": True},
    }
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": 0} | recommended))
    plain, other = decoding.load(base)[0], decoding.load(str(tmp_path / "model"))[0]
    assert other.generation_config.suppress_tokens == [3, 4, 5]
    assert beams(other, PROMPTS) == beams(plain, PROMPTS)
    config = decoding.decoding_config(6, [END], 1, temperature=1.0, copies=4)
    torch.manual_seed(1)
    sampled = decoding.generate(plain, PROMPTS, config)
    torch.manual_seed(1)
    assert decoding.generate(other, PROMPTS, config) == sampled
    assert other.generation_config.suppress_tokens == [3, 4, 5]
    for eval_beams in (1, 3):
        policy = Grpo(str(tmp_path / "model"), eval_beams=eval_beams)
        assert policy.generate(EXAMPLES) == Grpo(base, eval_beams=eval_beams).generate(EXAMPLES)
    for candidates_of_training in ("beam", "sample"):
        settings = BEAM | {"candidates": candidates_of_training, "evaluations": 1, "learning_rate": 0.01}
        trained = Run(Grpo(str(tmp_path / "model"), **settings), tmp_path, grade=grade_lateness)
        same = Run(Grpo(base, **settings), tmp_path, grade=grade_lateness)
        assert trained.completions == same.completions
        assert trained.column("grad_norm") == same.column("grad_norm")


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_log_probabilities_of_the_loss_are_those_of_an_independent_forward_pass(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    differences: list[float] = []
    reference = AutoModelForCausalLM.from_pretrained(base, dtype="float64").eval()
    of_trl = trainer.Trainer._get_per_token_logps_and_entropies

    def spy(self: Any, model: Any, ids: torch.Tensor, mask: torch.Tensor, width: int, *rest: Any, **more: Any) -> Any:
        answer = of_trl(self, model, ids, mask, width, *rest, **more)
        adapted = torch.is_grad_enabled()  # TRL reads the reference's without
        independent_model = rebuilt(policy) if adapted else reference
        with torch.no_grad():
            for row, logs in enumerate(answer[0]):
                prompt = ids[row, :-width][mask[row, :-width].bool()].tolist()
                completion = ids[row, -width:][mask[row, -width:].bool()].tolist()
                independent = log_probabilities(independent_model, prompt, completion)
                differences.append(float((logs[: len(completion)] - independent).abs().max()))
        return answer

    monkeypatch.setattr(trainer.Trainer, "_get_per_token_logps_and_entropies", spy)
    settings = BEAM | {"lora_dropout": 0.0, "learning_rate": 0.02, "epochs": 2, "gradient_checkpointing": checkpointing}
    policy = Grpo(base, **settings)
    run = Run(policy, tmp_path, grade=grade_lateness)
    assert len(differences) == 4 * 8 * 2
    assert max(differences) <= 1e-5
    assert run.column("kl")[0] == 0
    assert run.column("kl")[-1] > 1e-3


def test_candidates_are_decoded_without_dropout_and_with_a_cache(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = []

    def spy(examples: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
        alone = decoding.generate_greedy(policy._model, policy._tokenizer, [e.prompt for e in examples], 6, 1, 4)
        first_of_group = dict(zip([e.id for e in reversed(examples)], reversed(completions), strict=True))
        for example, best in zip(examples, alone, strict=True):
            assert first_of_group[example.id] == best
        return grade(examples, completions)

    policy = Grpo(base, **BEAM | {"lora_dropout": 0.9, "learning_rate": 0.02, "gradient_checkpointing": True})
    forward = decoding.generate

    def counting(model: Any, *rest: Any) -> Any:
        hook = model.get_input_embeddings().register_forward_hook(lambda _, ids, __: widths.append(ids[0].shape[1]))
        found = forward(model, *rest)
        hook.remove()
        return found

    monkeypatch.setattr(decoding, "generate", counting)
    Run(policy, tmp_path, grade=spy)
    assert 1 in widths
    assert widths.count(1) > len(widths) / 2


def test_a_group_is_never_in_two_processes(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert list(Grpo(base, **BEAM).findings()) == []
    assert list(Grpo(base, **BEAM | {"prompts_per_step": 2, "micro_batch": 2}).findings()) == []
    monkeypatch.setenv("WORLD_SIZE", "3")
    [finding] = Grpo(base, **BEAM).findings()
    assert finding.level == "error"
    assert finding.text == (
        "prompts_per_step = 4 cannot be shared out among 3 processes: the candidates of one prompt must be in one "
        "process; use a multiple of the number of processes"
    )
    with pytest.raises(ConfigError, match="policy grpo: prompts_per_step = 4 cannot be shared out among 3 processes"):
        Grpo(base, **BEAM).train(EXAMPLES, grade, TrainingJob(tmp_path, 7, float, print))


TOGETHER = """
import json, os, pathlib, sys

sys.path.insert(0, sys.argv[1])
from grpo_runs import Run, grade_lateness
from codegym_grpo.policy import Grpo

rank = os.environ.get("RANK", "0")
settings = json.loads(sys.argv[3])
run = Run(Grpo(sys.argv[2], **settings), pathlib.Path(sys.argv[4], "run"), grade=grade_lateness)
if rank == "0":
    pathlib.Path(sys.argv[4], "log.json").write_text(json.dumps([run.column(name) for name in ("grad_norm", "reward")]))
"""


def test_two_processes_compare_the_same_groups_as_one(base: str, tmp_path: Path) -> None:
    settings = BEAM | {"lora_dropout": 0.0, "learning_rate": 0.01, "epochs": 2}
    (tmp_path / "together.py").write_text(TOGETHER)
    arguments = [str(Path(__file__).parent), base, json.dumps(settings), str(tmp_path)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, str(tmp_path / "together.py"), *arguments]
    launched = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert launched.returncode == 0, launched.stderr
    gradients, rewards = json.loads((tmp_path / "log.json").read_text())
    alone = Run(Grpo(base, **settings), tmp_path, grade=grade_lateness)
    assert alone.column("grad_norm") == pytest.approx(gradients, rel=1e-5)
    assert alone.column("reward") == pytest.approx(rewards, rel=1e-5)


def test_prompts_that_are_not_repeated_group_by_group_stop_the_run(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout, shifted = groups.Groups.rollout, lambda prompts: [*prompts[1:], prompts[0]]
    monkeypatch.setattr(groups.Groups, "rollout", lambda self, prompts, trl: rollout(self, shifted(prompts), trl))
    with pytest.raises(PluginError, match=r"TRL [\d.]+ did not hand over each prompt 2 times in a row"):
        Run(Grpo(base, **BEAM), tmp_path)


def test_settings_that_do_not_go_with_a_beam_search_are_told(base: str) -> None:
    def problems(**settings: object) -> list[str]:
        return [finding.text for finding in Grpo(base, **BEAM | settings).findings()]

    assert problems() == []
    assert problems(num_generations=5, micro_batch=20) == [
        "num_generations = 5 candidates do not come out of a search that is candidate_beams = 4 wide; "
        "set candidate_beams to 5 or more"
    ]
    assert problems(temperature=0.7) == [
        'temperature = 0.7 with candidates = "beam": a search does not sample, and the loss would be that of another '
        "distribution; use temperature = 1.0"
    ]


def test_beam_groups_learn(base: str, tmp_path: Path) -> None:
    settings: Mapping[str, Any] = BEAM | {"full_finetune": True, "learning_rate": 0.003, "epochs": 6, "kl_beta": 0.0}
    reward = Run(Grpo(base, **settings), tmp_path, grade=grade_lateness).column("reward")
    assert sum(reward[-3:]) / 3 > sum(reward[:3]) / 3 + 2
