"""The policy that trains a small model from scratch."""

from __future__ import annotations

import json

import pytest

from codegym import ConfigError, Example, TrainingJob
from codegym_grpo.supervised_policy import Supervised

STARTS, ENDINGS = ("Ba", "Do", "Ki", "Lu", "Me", "Ra", "So", "Tu"), ("lan", "mir", "nek", "ros")
NAMES = [start + ending for start in STARTS for ending in ENDINGS]
CHAIN = "SELECT COUNT(*) FROM athlete JOIN tournament USING (athlete_id) WHERE athlete.name = "


def examples(names: list[str]) -> list[Example]:
    return [
        Example(f"train/{row}", f"How many medals has {name}?\n", "", metadata={"target": f"{CHAIN}'{name}'"})
        for row, name in enumerate(names)
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    losses: list[float] = []

    def log(step, steps, values):
        losses.extend([values["loss"]] if "loss" in values else [])

    size = {"hidden": 64, "layers": 2, "mlp": 128, "vocabulary": 512}
    policy = Supervised(**size, batch_size=16, learning_rate=4e-3, warmup_steps=5, log_every_steps=10)
    job = TrainingJob(tmp_path_factory.mktemp("supervised"), 0, lambda: 0.0, log)
    known = NAMES[:28]
    policy.train(examples([known[row % 28] for row in range(2400)]), lambda asked, completions: [], job)
    return policy, losses


def test_the_loss_falls(trained):
    _, losses = trained
    assert losses[-1] < 0.15 * losses[0]


def test_it_writes_the_query_with_the_name_of_the_question_and_stops(trained):
    policy, _ = trained
    asked = examples(NAMES[:4])
    assert policy.generate(asked) == [example.metadata["target"] for example in asked]


def test_greedy_completions_do_not_depend_on_the_batch_they_are_in(trained):
    policy, _ = trained
    asked = examples(["Balan", "Kinek Ramir Turos"])
    assert policy.generate(asked) == [*policy.generate(asked[:1]), *policy.generate(asked[1:])]


def test_decoding_touches_neither_the_random_state_nor_the_mode(trained):
    import torch

    policy, _ = trained
    policy.model.train()
    before = torch.get_rng_state()
    policy.generate(examples(NAMES[:2]))
    assert torch.equal(before, torch.get_rng_state())
    assert policy.model.training


def test_a_long_phrase_is_one_token_and_a_name_is_cut_up_alike_everywhere(trained):
    policy, _ = trained
    pieces = policy.tokenizer.tokenize
    assert len(pieces(CHAIN + "'")) == 1
    assert pieces("has Balan?")[1:-1] == pieces("'Balan'")[1:-1] == pieces("Balan")


def test_the_tokenizer_adds_nothing_to_a_plain_prompt(trained):
    policy, _ = trained
    text = "How many medals has Éva O'Roß-lan?\n"
    ids = policy.tokenizer(text)["input_ids"]
    assert policy.tokenizer.decode(ids) == text
    assert not set(ids) & {policy.tokenizer.eos_token_id, policy.tokenizer.pad_token_id}


def test_the_saved_folder_loads_and_completes_alike(trained, tmp_path, monkeypatch):
    from codegym_grpo import decoding

    policy, _ = trained
    policy.save(tmp_path)
    model, tokenizer = decoding.load(str(tmp_path))
    asked = examples(NAMES[:3])
    expected = decoding.generate_greedy(model, tokenizer, [example.prompt for example in asked])
    monkeypatch.setattr(decoding, "generate", None)  # `decode_shared` does it
    assert policy.generate(asked) == expected
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == tokenizer.eos_token_id


def test_the_same_seed_trains_the_same_weights(tmp_path):
    import torch

    def weights() -> torch.Tensor:
        policy = Supervised(hidden=16, layers=1, heads=2, mlp=16, vocabulary=300, batch_size=8)
        job = TrainingJob(tmp_path, 7, lambda: 0.0, lambda *_: None)
        policy.train(examples(NAMES), lambda asked, completions: [], job)
        return torch.cat([parameter.flatten() for parameter in policy.model.parameters()])

    torch.set_num_threads(1)
    assert torch.equal(weights(), weights())


def test_before_training_it_completes_nothing():
    assert Supervised().generate(examples(NAMES[:2])) == ["", ""]


def test_an_example_without_a_target_is_named(tmp_path):
    bare = [*examples(NAMES[:1]), Example("train/77", "How many?\n", "3")]
    job = TrainingJob(tmp_path, 0, lambda: 0.0, lambda *_: None)
    sentence = 'supervised learns from metadata\\["target"\\], which 1 examples lack, the first: train/77'
    with pytest.raises(ConfigError, match=sentence):
        Supervised().train(bare, lambda asked, completions: [], job)
