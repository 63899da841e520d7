from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from codegym import ConfigError, Example
from codegym_endpoint.policy import Endpoint

for package in ("openai", "fastapi", "uvicorn"):
    pytest.importorskip(package, reason="transformers serve needs: pip install 'codegym[endpoint,dev]'")

BASE = Path(__file__).parents[2] / "benchmarks" / "base"
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
QUESTIONS = ["How many medals has Ann Lee won?", "When was Bo Park born?", "In which year did Kim Hall win gold?"]
EXAMPLES = [Example(id=f"test/{row}", prompt=f"{question}\n", answer="") for row, question in enumerate(QUESTIONS)]
KEY = "sk-a-key-that-nobody-may-see"
START_LIMIT = 120


@dataclass
class Served:
    """The small model as `transformers serve` serves it, and the same model here."""

    model: str
    url: str

    def greedy(self, prompts: list[str], max_new_tokens: int) -> list[str]:
        """Return what transformers itself decodes, one prompt at a time."""
        model = AutoModelForCausalLM.from_pretrained(self.model)
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        completions = []
        for prompt in prompts:
            ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
            sequence = model.generate(ids, do_sample=False, max_new_tokens=max_new_tokens)[0, ids.shape[1] :]
            completions.append(tokenizer.decode(sequence, skip_special_tokens=True))
        return completions


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served") / "base"
    shutil.copytree(BASE, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    command = [Path(sys.executable).parent / "transformers", "serve", folder, *options]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = folder.parent / "log"
    with log.open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", server, log)
        yield Served(str(folder), f"http://127.0.0.1:{port}/v1")
    finally:
        server.kill()
        server.wait()


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(START_LIMIT * 5):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except URLError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.mark.parametrize("api", ["chat", "completion"])
def test_completions_are_those_of_greedy_decoding(served: Served, api: str) -> None:
    policy = Endpoint(served.model, served.url, api=api, max_tokens=96)  # type: ignore[arg-type]
    expected = served.greedy([str(example.prompt) for example in EXAMPLES], 96)
    assert len(set(expected)) == 3
    assert policy.generate(EXAMPLES) == expected
    assert policy.usage.requests == 3
    assert policy.usage.input_tokens > 15
    assert policy.usage.output_tokens > 3


def test_a_completion_that_is_cut_off_is_counted(served: Served) -> None:
    policy = Endpoint(served.model, served.url, api="completion", max_tokens=2)
    assert policy.generate(EXAMPLES[:1]) == served.greedy([str(EXAMPLES[0].prompt)], 2)
    assert policy.usage.cut_off == 1


def test_a_model_that_is_not_served_is_told(served: Served) -> None:
    with pytest.raises(ConfigError, match=r"\(400: Server is pinned to .+; requested 'gpt-nobody'.\); change model"):
        Endpoint("gpt-nobody", served.url).generate(EXAMPLES[:1])


RUN_FILE = """
[dataset]
plugin = "temptabqa_sample"
prompt = "{{question}}\\n"
athletes = 20
test_size = 6

[policy]
plugin = "endpoint"
model = "{model}"
base_url = "{url}"
api = "completion"
key_env = "CODEGYM_TEST_KEY"
max_tokens = 96
price_per_million_input = 1000
price_per_million_output = 1000

[backend]
plugin = "sqlite"

[rewards.rems]
"""


def test_eval_grades_what_the_server_completes_and_writes_no_key(
    served: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    monkeypatch.setenv("CODEGYM_TEST_KEY", KEY)
    file = tmp_path / "run.toml"
    file.write_text(RUN_FILE.format(model=served.model, url=served.url))
    done = cli("eval", file, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert re.search(r"base: 6 requests, \d+ tokens in, \d+ tokens out, cost 0\.\d+$", caplog.text, re.MULTILINE)
    figures = json.loads((tmp_path / "out/report.json").read_text())["policy"]
    assert figures["requests"] == 6
    assert figures["cost"] > 0
    rollouts = [json.loads(line) for line in (tmp_path / "out/rollouts/test.before.jsonl").read_text().splitlines()]
    assert len(rollouts) == 6
    assert all(rollout["code"].startswith("SELECT") for rollout in rollouts)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) > 3
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []
    assert KEY not in done.stdout + done.stderr + caplog.text


def test_eval_without_the_key_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    monkeypatch.delenv("CODEGYM_TEST_KEY", raising=False)
    file = tmp_path / "run.toml"
    file.write_text(RUN_FILE.format(model="m", url="https://example.org/v1"))
    done = cli("eval", file, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "[policy] the environment variable CODEGYM_TEST_KEY, which key_env names, is not set" in done.stderr
    assert not (tmp_path / "out").exists()
