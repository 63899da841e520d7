from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from grpo_runs import EXAMPLES, FULL, SMALL, Run, grade, same, share_of_a, tiny_model
from peft import PeftModel
from transformers import AutoModelForCausalLM
from trl import GRPOConfig

from codegym import BackendError, ConfigError, Example, PluginError, Rollout, TrainingJob
from codegym_grpo import callbacks, decoding, groups, loading, pinning, trainer
from codegym_grpo.policy import Grpo


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of an untrained Llama of 16 words."""
    return tiny_model(tmp_path_factory.mktemp("base"))


def test_the_reward_of_a_trivial_task_rises_and_is_logged_part_by_part(base: str, tmp_path: Path) -> None:
    run = Run(Grpo(base, **FULL, epochs=4), tmp_path)
    reward = run.column("reward")
    assert len(reward) == 8
    assert reward[-1] > reward[0] + 0.3
    assert reward == pytest.approx(run.column("toy.a"), abs=1e-4)
    assert run.column("ems") == [1.0] * 8
    step, steps, values = run.log[-1]
    assert (step, steps) == (8, 8)
    always = {*callbacks.REPORTED.values()} - {"groups_drawn", "groups_replaced", "entropy_coef"}
    assert values.keys() >= always | {f"seconds.{x}" for x in ("generate", "execute", "train")}
    assert share_of_a(run.policy.generate(EXAMPLES[:1])[0]) == 1.0


def test_evaluation_leaves_the_training_bit_for_bit_as_it_was(base: str, tmp_path: Path) -> None:
    lora = SMALL | {"learning_rate": 0.01, "lora_dropout": 0.5}
    for settings in (FULL, lora):
        without = Run(Grpo(base, **settings), tmp_path / "without")
        often = Run(Grpo(base, **settings | {"evaluations": 2}), tmp_path / "with", scores=[0, 1, 2])
        assert len(often.completions) == 3
        assert same(without.weights(), often.weights())
        assert without.column("reward") == often.column("reward")


def test_the_loss_without_padding_is_the_loss(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = FULL | {"micro_batch": 2, "kl_beta": 0.5}
    trimmed = Run(Grpo(base, **settings), tmp_path)
    widths = set()

    def padded(inputs: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        short = without_padding(inputs)
        widths.add(short["prompt_ids"].shape[1] < inputs["prompt_ids"].shape[1])
        widths.add(short["completion_ids"].shape[1] == short["ref_per_token_logps"].shape[1])
        return inputs

    without_padding = trainer.without_padding
    monkeypatch.setattr(trainer, "without_padding", padded)
    plain = Run(Grpo(base, **settings), tmp_path)
    assert widths == {True, False}
    assert trimmed.column("grad_norm") == pytest.approx(plain.column("grad_norm"), rel=1e-4)
    assert trimmed.column("loss") == pytest.approx(plain.column("loss"), abs=1e-6)
    assert trimmed.column("reward") == plain.column("reward")


def test_the_weights_that_scored_best_on_dev_are_kept(base: str, tmp_path: Path) -> None:
    run = Run(Grpo(base, **FULL | {"evaluations": 3, "epochs": 2}), tmp_path, scores=[0.1, 0.2, 0.9, 0.9])
    assert run.evaluated == [0, 2, 3, 4]
    assert run.policy.generate(EXAMPLES) == run.completions[2]
    best = Grpo(str(tmp_path / "best"))
    run.policy.save(Path(best.model))
    assert same(best._loaded(())[0].state_dict(), run.policy._model.state_dict())
    assert (tmp_path / "checkpoint-4" / "model.safetensors").is_file()


def test_the_model_as_it_came_is_kept_if_no_evaluation_beats_it(
    base: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    untrained = AutoModelForCausalLM.from_pretrained(base).state_dict()
    with caplog.at_level(logging.WARNING, "codegym_grpo"):
        run = Run(Grpo(base, **FULL | {"evaluations": 2}), tmp_path, scores=[0.5, 0.5, 0.4])
    assert same(untrained, run.weights())
    assert "no evaluation beat the model as it came (0.5000 on dev)" in caplog.text


def test_a_lora_adapter_is_trained_in_float32_saved_and_loaded_by_peft(base: str, tmp_path: Path) -> None:
    run = Run(Grpo(base, **SMALL, dtype="bfloat16", learning_rate=0.01), tmp_path)
    assert {weight.dtype for weight in callbacks.trainable(run.policy._model).values()} == {torch.float32}
    run.policy.save(tmp_path / "adapter")
    fresh, tokenizer = decoding.load(base, "bfloat16")
    loaded = PeftModel.from_pretrained(fresh, str(tmp_path / "adapter"))
    prompts = [example.prompt for example in EXAMPLES]
    assert decoding.generate_greedy(loaded, tokenizer, prompts, 6) == run.policy.generate(EXAMPLES)
    run.policy.decode = "generate"
    assert decoding.generate_greedy(loaded, tokenizer, prompts, 6) == run.policy.generate(EXAMPLES)
    assert any(weight.abs().sum() > 0 for name, weight in loaded.state_dict().items() if "lora_B" in name)
    adapted = Grpo(str(tmp_path / "adapter"), **SMALL, dtype="bfloat16")
    assert list(adapted.findings()) == []
    assert adapted.generate(EXAMPLES) == run.policy.generate(EXAMPLES)
    with pytest.raises(ConfigError, match="holds an adapter, which can be evaluated but not trained on"):
        Run(adapted, tmp_path)


@pytest.mark.parametrize("stop", [BackendError("the server is gone"), KeyboardInterrupt("the server is gone")])
def test_a_failure_of_the_machine_or_ctrl_c_stops_the_run_and_is_never_a_number(
    base: str, tmp_path: Path, stop: BaseException
) -> None:
    calls = []

    def failing(examples: Sequence[Example], completions: Sequence[str]) -> list[Rollout]:
        calls.append(len(completions))
        if len(calls) == 2:
            raise stop
        return grade(examples, completions)

    with pytest.raises(type(stop), match="the server is gone"):
        Run(Grpo(base, **FULL), tmp_path, grade=failing)
    assert calls == [32, 32]


def test_a_grader_that_gives_too_few_or_infinite_rewards_stops_the_run(base: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="32 completions need as many finite rewards"):
        Run(Grpo(base, **FULL), tmp_path, grade=lambda examples, texts: grade(examples, texts)[1:])
    with pytest.raises(PluginError, match="32 completions need as many finite rewards"):
        Run(
            Grpo(base, **FULL),
            tmp_path,
            grade=lambda *batch: [dataclasses.replace(each, reward=float("inf")) for each in grade(*batch)],
        )


def test_a_gradient_of_zero_in_spite_of_different_rewards_stops_the_run(base: str, tmp_path: Path) -> None:
    model, tokenizer = decoding.load(base)
    model.lm_head.weight.data.zero_()  # every token is equally likely, whatever the adapter does
    model.save_pretrained(tmp_path / "deaf")
    tokenizer.save_pretrained(tmp_path / "deaf")
    with pytest.raises(PluginError, match=r"the gradient is 0\.0: nothing can be learned. Look at target_modules"):
        Run(Grpo(str(tmp_path / "deaf"), **SMALL), tmp_path / "run")


def test_modules_that_no_gradient_reaches_are_told(base: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer = decoding.load(base)
    model.model.layers[1].self_attn.o_proj.weight.data.zero_()  # what the layer attends to has no effect
    model.save_pretrained(tmp_path / "deaf")
    tokenizer.save_pretrained(tmp_path / "deaf")
    with caplog.at_level(logging.WARNING, "codegym_grpo"):
        Run(Grpo(str(tmp_path / "deaf"), **SMALL), tmp_path / "run")
    assert caplog.text.count("no gradient reaches") == 1
    assert "no gradient reaches 3 of 14 modules that are to be trained, the first: base_model.model." in caplog.text
    caplog.clear()
    Run(Grpo(base, **SMALL), tmp_path / "run")
    assert "no gradient" not in caplog.text


def test_nothing_is_printed(base: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Run(Grpo(base, **FULL | {"evaluations": 1}), tmp_path)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_every_setting_of_trl_that_touches_the_loss_is_pinned(base: str, tmp_path: Path) -> None:
    job = TrainingJob(tmp_path, 7, float, print)
    pinned = pinning.trl_settings(Grpo(base), job, 10)
    without_effect = {  # on the loss, with what is pinned
        *("model_init_kwargs", "trust_remote_code", "num_generations_eval", "ds3_gather_for_generation"),
        *("generation_batch_size", "max_tool_calling_iterations", "ref_model_mixup_alpha", "ref_model_sync_steps"),
        *(
            "transformers_continuous_batching_config",
            "use_transformers_paged",
            "full_determinism",
            "liger_kernel_config",
        ),
        *("train_sampling_strategy", "length_column_name", "prediction_loss_only", "label_names", "use_cache", "debug"),
        *("do_train", "do_eval", "do_predict", "per_device_eval_batch_size", "include_for_metrics", "run_name"),
        *(
            "resume_from_checkpoint",
            "ignore_data_skip",
            "restore_callback_states_from_checkpoint",
            "skip_memory_metrics",
        ),
        *("torch_empty_cache_steps", "torch_compile_backend", "torch_compile_mode", "include_num_input_tokens_seen"),
        *("local_rank", "deepspeed", "parallelism_config", "accelerator_config", "greater_is_better"),
        *(
            "enable_jit_checkpoint",
            "load_best_model_at_end",
            "metric_for_best_model",
            "bf16_full_eval",
            "fp16_full_eval",
        ),
        *("activation_checkpointing", "activation_checkpointing_kwargs", "project", "batch_eval_metrics"),
    }
    without_effect_as_a_family = (
        *("vllm_importance_sampling_cap", "sapo_", "vespo_"),  # an old name, and switched off
        *("hub_", "trackio_", "log_", "num_completions_to_print", "save_", "eval_", "dataloader_", "ddp_", "fsdp"),
    )
    unpinned = {field.name for field in dataclasses.fields(GRPOConfig)} - pinned.keys() - without_effect
    assert {name for name in unpinned if not name.startswith(without_effect_as_a_family)} == set()
    config = pinning.trl_config(pinned)
    differing = {name for name, value in pinned.items() if getattr(config, name) != value}
    assert differing <= {"lr_scheduler_kwargs", "report_to", "save_strategy", "logging_strategy", "eval_strategy"}
    assert (config.use_adaptive_entropy, config.epsilon_high, config.scale_rewards) == (False, 0.2, "group")
    assert (config.loss_type, config.beta, config.use_bias_correction_kl, config.num_iterations) == (
        "grpo",
        0.04,
        False,
        1,
    )


def test_a_trl_that_does_not_know_a_setting_is_refused() -> None:
    with pytest.raises(PluginError, match=r"TRL [\d.]+ does not know kl_of_tomorrow; .* pip install 'trl>=1.8,<2'"):
        pinning.trl_config({"kl_of_tomorrow": 1})


def test_equal_rewards_survive_float32_and_noise_is_no_preference() -> None:
    assert groups.sixteen_bits(-100.0) == -100.0
    assert groups.sixteen_bits(1101.0) == 1101.0
    assert groups.sixteen_bits(0.0) == 0.0
    assert groups.sixteen_bits(200 / 3) == groups.sixteen_bits(200 / 3 + 1e-10) == pytest.approx(200 / 3, rel=1e-4)
    group = torch.full((7,), groups.sixteen_bits(200 / 3))
    assert (group - group.mean()).abs().max() == 0


def test_each_epoch_is_shuffled_and_the_last_step_filled_up(base: str) -> None:
    settings = Grpo(base, prompts_per_step=5, epochs=2)
    order = trainer.lay_out(EXAMPLES, settings, seed=1)
    assert len(order) == 20
    assert sorted(each.id for each in order[:8]) == sorted(each.id for each in order[8:16])
    assert order[:8] != order[8:16]
    assert order == trainer.lay_out(EXAMPLES, settings, seed=1) != trainer.lay_out(EXAMPLES, settings, seed=2)


def test_evaluations_are_evenly_spread_and_end_with_the_last_step() -> None:
    assert trainer.evaluation_steps(5, 186) == {38, 75, 112, 149, 186}
    assert trainer.evaluation_steps(5, 3) == {1, 2, 3}
    assert trainer.evaluation_steps(0, 3) == set()


def test_questions_that_are_too_long_are_left_out_and_counted(
    base: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "codegym_grpo"):
        run = Run(Grpo(base, **FULL | {"max_prompt_tokens": 4}), tmp_path)
    assert "4 of 8 prompts have more than max_prompt_tokens = 4 tokens and are left out" in caplog.text
    assert run.log[-1][1] == 1
    with pytest.raises(ConfigError, match="none of the 8 prompts has at most max_prompt_tokens = 0 tokens"):
        Run(Grpo(base, **FULL | {"max_prompt_tokens": 0}), tmp_path)


def problems(base: str, **settings: object) -> list[str]:
    return [finding.text for finding in Grpo(base, **settings).findings() if finding.level == "error"]


def test_settings_that_do_not_go_together_are_told_at_once(base: str, tmp_path: Path) -> None:
    assert "micro_batch = 24 must divide the 128 completions of a step" in problems(base, micro_batch=24)[0]
    assert "loses small updates" in problems(base, full_finetune=True, dtype="bfloat16")[0]
    assert "nothing would be trained" in problems(base, target_modules=())[0]
    several = {"micro_batch": 24, "candidates": "beam", "num_generations": 8, "candidate_beams": 4}
    assert len(problems(base, **several)) == 2
    with pytest.raises(ConfigError, match=r"policy grpo: num_generations = 8 .*\n.*policy grpo: micro_batch = 24 must"):
        Grpo(base, **several).train(EXAMPLES, grade, TrainingJob(tmp_path, 7, float, print))


def test_an_adapter_for_modules_that_the_model_does_not_have_is_refused(base: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"policy grpo: TRL refuses these settings: .*no_proj.* not found"):
        Run(Grpo(base, **SMALL, target_modules=("no_proj",)), tmp_path)


def test_a_model_that_is_not_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    policy = Grpo(str(tmp_path / "nowhere"))
    assert [finding.level for finding in policy.findings()] == ["error"]
    with pytest.raises(ConfigError, match=r"cannot load the model '.*nowhere'.*Set model to a folder with config.json"):
        policy.generate(EXAMPLES)


def test_chat_messages_need_a_chat_template(base: str) -> None:
    chat = Example(id="a", prompt=({"role": "user", "content": "a"},), answer="")
    with pytest.raises(ConfigError, match=r"prompts are chat messages, but the tokenizer of .* has no chat template"):
        Grpo(base).generate([chat])


def test_chat_messages_are_trained_on(base: str, tmp_path: Path) -> None:
    policy = Grpo(base, **FULL)
    _, tokenizer = policy._loaded(())
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    chats = [dataclasses.replace(each, prompt=({"role": "user", "content": each.prompt},)) for each in EXAMPLES]
    texts = []
    job = TrainingJob(tmp_path, 7, float, lambda *_: None)
    policy.train(chats, lambda examples, completions: texts.extend(completions) or grade(examples, completions), job)
    assert len(texts) == 64
    assert all(isinstance(text, str) for text in texts)


@pytest.mark.skipif("CI" in os.environ, reason="TRL sends nothing where CI is set")
def test_no_telemetry_is_sent(base: str) -> None:
    import huggingface_hub

    loading.load(Grpo(base))
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
