from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from codegym import BackendError, ConfigError, Example
from codegym.config import load
from codegym_endpoint.completions import without_thoughts
from codegym_endpoint.policy import Endpoint

pytest.importorskip("openai", reason="the policy endpoint needs: pip install 'codegym[endpoint]'")
PAPER = Path(__file__).parents[2] / "benchmarks" / "paper"
KEY = "sk-a-key-that-nobody-may-see"
Answer = tuple[int, Any]


def example(name: str) -> Example:
    return Example(id=f"test/{name}", prompt=f"say {name}", answer="")


EXAMPLES = [example(name) for name in "abcdef"]


def completion(text: str | None, **fields: Any) -> Answer:
    choice = {"index": 0, "finish_reason": "stop", "text": text, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return 200, {"id": "1", "object": "x", "created": 0, "model": "m", "choices": [choice | fields], "usage": usage}


def echo(request: Mapping[str, Any], times: int) -> Answer:
    return completion(f"heard {said(request)}")


def said(request: Mapping[str, Any]) -> str:
    return request["prompt"] if "prompt" in request else request["messages"][-1]["content"]


class Server:
    """A server on this machine that speaks the protocol; `reply(request, times)` says what and how often it was asked.

    It knows nothing about a model: `test_endpoint_serve.py` asks one.
    """

    def __init__(self, reply: Callable[[Mapping[str, Any], int], Answer] = echo) -> None:
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str] = []
        times: Counter[str] = Counter()
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.requests.append(request)
                    server.paths.append(self.path)
                    server.keys.append(self.headers["Authorization"])
                    times[said(request)] += 1
                    asked = times[said(request)]
                status, answer = reply(request, asked)
                text = answer if isinstance(answer, str) else json.dumps(answer)
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if isinstance(answer, str) else "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.send_header("Retry-After-Ms", "10")
                self.end_headers()
                with suppress(ConnectionError):  # the client gave up, as some tests want it
                    self.wfile.write(text.encode())

            def log_message(self, format: str, *values: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*reply: Callable[[Mapping[str, Any], int], Answer]) -> Server:
        servers.append(Server(*reply))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def errors(policy: Endpoint) -> list[str]:
    return [finding.text for finding in policy.findings() if finding.level == "error"]


def test_each_example_gets_its_own_completion_in_order(serve: Callable[..., Server]) -> None:
    def last_one_first(request: Mapping[str, Any], times: int) -> Answer:
        time.sleep(0 if said(request) == "say f" else 0.02)
        return echo(request, times)

    policy = Endpoint("m", serve(last_one_first).url)
    assert policy.generate(EXAMPLES) == [f"heard say {name}" for name in "abcdef"]
    assert policy.generate([]) == []


def test_an_example_that_comes_twice_is_asked_twice(serve: Callable[..., Server]) -> None:
    server = serve(lambda request, times: completion(f"{said(request)} {times}"))
    twice = [EXAMPLES[0], EXAMPLES[0]]
    assert sorted(Endpoint("m", server.url, temperature=1.0).generate(twice)) == ["say a 1", "say a 2"]


def test_two_samples_at_temperature_0_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Endpoint("m", temperature=0.5).prepare([EXAMPLES[0], EXAMPLES[0]])
    Endpoint("m").prepare(EXAMPLES)
    assert not caplog.records
    Endpoint("m").prepare([EXAMPLES[0], EXAMPLES[0]])
    assert "several samples of an example at temperature 0 are mostly the same; raise temperature" in caplog.text


def test_a_chat_is_asked_with_the_system_text_the_settings_and_the_key(serve: Callable[..., Server]) -> None:
    server = serve()
    Endpoint("m", server.url, system="Be brief.", max_tokens=7, body={"seed": 1}).generate(EXAMPLES[:1])
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "say a"}]
    assert server.requests == [{"messages": messages, "model": "m", "temperature": 0.0, "max_tokens": 7, "seed": 1}]
    assert server.paths == ["/v1/chat/completions"]
    assert server.keys == [f"Bearer {KEY}"]


def test_prompts_that_are_messages_are_sent_as_they_are(serve: Callable[..., Server]) -> None:
    server = serve()
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]
    Endpoint("m", server.url).generate([Example(id="test/0", prompt=messages, answer="")])  # type: ignore[arg-type]
    assert server.requests[0]["messages"] == messages


def test_a_completion_is_asked_with_the_text_alone(serve: Callable[..., Server]) -> None:
    server = serve()
    policy = Endpoint("m", server.url, api="completion", max_tokens=0)
    assert policy.generate(EXAMPLES[:1]) == ["heard say a"]
    assert server.requests == [{"prompt": "say a", "model": "m", "temperature": 0.0}]
    assert server.paths == ["/v1/completions"]


def test_as_many_requests_as_allowed_are_under_way_at_once_and_no_more(serve: Callable[..., Server]) -> None:
    together = threading.Barrier(3)
    under_way, most = 0, 0
    lock = threading.Lock()

    def meet(request: Mapping[str, Any], times: int) -> Answer:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        together.wait(timeout=10)
        time.sleep(0.02)
        with lock:
            under_way -= 1
        return echo(request, times)

    Endpoint("m", serve(meet).url, concurrency=3, attempts=1).generate(EXAMPLES)
    assert most == 3


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_or_failing_server_is_asked_again(serve: Callable[..., Server], status: int) -> None:
    def busy(request: Mapping[str, Any], times: int) -> Answer:
        return (status, {"error": {"message": "busy"}}) if times < 3 else echo(request, times)

    policy = Endpoint("m", serve(busy).url)
    assert policy.generate(EXAMPLES) == [f"heard say {name}" for name in "abcdef"]
    assert policy.usage.requests == 6


def test_a_server_that_is_silent_is_asked_again(serve: Callable[..., Server]) -> None:
    def silent(request: Mapping[str, Any], times: int) -> Answer:
        time.sleep(0.6 if times == 1 else 0)
        return echo(request, times)

    assert Endpoint("m", serve(silent).url, timeout=0.3).generate(EXAMPLES[:1]) == ["heard say a"]


def test_a_server_that_goes_on_failing_stops_the_run_and_is_no_completion(serve: Callable[..., Server]) -> None:
    def broken(request: Mapping[str, Any], times: int) -> Answer:
        return (503, {"error": {"message": "no GPU"}}) if said(request) == "say c" else echo(request, times)

    server = serve(broken)
    with pytest.raises(BackendError, match=r"gave no completion, asked up to 3 times \(503: no GPU\)"):
        Endpoint("m", server.url, attempts=3).generate(EXAMPLES)
    assert Counter(said(request) for request in server.requests)["say c"] == 3


def test_the_first_failure_cancels_what_is_under_way(serve: Callable[..., Server]) -> None:
    free = threading.Event()

    def hangs(request: Mapping[str, Any], times: int) -> Answer:
        if said(request) == "say c":
            return 503, {}
        free.wait(10)
        return echo(request, times)

    started = time.monotonic()
    try:
        with pytest.raises(BackendError):
            Endpoint("m", serve(hangs).url, attempts=1).generate(EXAMPLES)
        assert time.monotonic() - started < 5
    finally:
        free.set()


def test_a_server_that_is_not_there_is_the_machines_fault() -> None:
    with pytest.raises(BackendError, match=r"/v1 gave no answer, asked 1 times \(.+\); is the server running\?"):
        Endpoint("m", "http://127.0.0.1:9/v1", attempts=1).generate(EXAMPLES)


@pytest.mark.parametrize(
    ("status", "told", "advice"),
    [
        (401, "wrong key", "does not accept the key (401: wrong key); put a key that may use model m into OPENAI_API_"),
        (403, "not yours", "does not accept the key (403: not yours)"),
        (404, "no such model", "has no model m, or no api chat (404: no such model); set model to one that it serves"),
        (
            400,
            "too long",
            "does not take the request for test/a (400: too long); change model, temperature, max_tokens",
        ),
        (422, "bad field", "does not take the request for test/a (422: bad field)"),
    ],
)
def test_a_refusal_is_told_at_once_with_what_to_change(
    serve: Callable[..., Server], status: int, told: str, advice: str
) -> None:
    server = serve(lambda request, times: (status, {"error": {"message": told}}))
    with pytest.raises(ConfigError) as caught:
        Endpoint("m", server.url).generate(EXAMPLES[:1])
    assert str(caught.value).startswith(f"policy endpoint: {server.url} {advice}")
    assert len(server.requests) == 1


def test_an_account_without_credit_is_the_users_to_mend(serve: Callable[..., Server]) -> None:
    server = serve(lambda request, times: (429, {"error": {"message": "pay", "code": "insufficient_quota"}}))
    with pytest.raises(ConfigError, match=r"the account of the key in OPENAI_API_KEY has no credit left \(429: pay\)"):
        Endpoint("m", server.url, attempts=2).generate(EXAMPLES[:1])


def test_a_page_instead_of_an_answer_is_told_as_a_wrong_address(serve: Callable[..., Server]) -> None:
    server = serve(lambda request, times: (200, "<html>welcome</html>"))
    with pytest.raises(ConfigError, match="answers, but not as an OpenAI server does; set base_url to what stands be"):
        Endpoint("m", server.url).generate(EXAMPLES[:1])


def test_an_answer_without_a_completion_is_no_empty_completion(serve: Callable[..., Server]) -> None:
    server = serve(lambda request, times: (200, completion("")[1] | {"choices": []}))
    with pytest.raises(BackendError, match="answered test/a without a completion"):
        Endpoint("m", server.url).generate(EXAMPLES[:1])


def test_a_model_that_says_nothing_gives_an_empty_completion(serve: Callable[..., Server]) -> None:
    server = serve(lambda request, times: completion(None, finish_reason="content_filter"))
    assert Endpoint("m", server.url).generate(EXAMPLES[:1]) == [""]


def test_an_error_never_shows_the_key(serve: Callable[..., Server]) -> None:
    server = serve(lambda request, times: (401, {"error": {"message": f"wrong key {KEY}"}}))
    with pytest.raises(ConfigError) as caught:
        Endpoint("m", server.url).generate(EXAMPLES[:1])
    assert "wrong key (the key)" in str(caught.value)
    assert KEY not in str(caught.value)


def test_tokens_and_cost_are_counted_and_told_at_the_end(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(
        lambda request, times: completion("x", finish_reason="length" if said(request) == "say a" else "stop")
    )
    policy = Endpoint("m", server.url, price_per_million_input=2.5, price_per_million_output=10.0)
    policy.generate(EXAMPLES)
    policy.generate(EXAMPLES[:4])
    assert (policy.usage.requests, policy.usage.input_tokens, policy.usage.output_tokens) == (10, 1000, 100)
    assert policy.usage.cost == pytest.approx((1000 * 2.5 + 100 * 10) / 1e6)
    with caplog.at_level(logging.INFO, "codegym_endpoint"):
        policy.close()
    told = "m: 10 requests, 1000 tokens in, 100 tokens out, cost 0.0035, 2 completions cut off at max_tokens"
    assert caplog.messages == [told]


def test_what_was_paid_for_before_a_failure_is_counted(serve: Callable[..., Server]) -> None:
    def broken(request: Mapping[str, Any], times: int) -> Answer:
        return (500, {}) if said(request) == "say f" else echo(request, times)

    policy = Endpoint("m", serve(broken).url, attempts=1, concurrency=1)
    with pytest.raises(BackendError):
        policy.generate(EXAMPLES)
    assert policy.usage.requests == 5


def test_a_server_that_counts_no_tokens_is_said_to(serve: Callable[..., Server]) -> None:
    server = serve(lambda request, times: (200, completion("x")[1] | {"usage": None}))
    policy = Endpoint("m", server.url)
    policy.generate(EXAMPLES[:2])
    assert str(policy.usage) == "2 requests, 0 tokens in, 0 tokens out, 2 answers did not say their tokens"


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("<think>Count? Yes.</think>\n\nSELECT 1", "SELECT 1"),
        ("Count? Yes.</think>SELECT 1", "SELECT 1"),
        ("<think>a</think>b<think>c</think> SELECT 1 ", "SELECT 1 "),
        (" SELECT 1\n", " SELECT 1\n"),
        ("<think>never en", "<think>never en"),
    ],
)
def test_thoughts_are_not_part_of_the_completion(text: str, stripped: str) -> None:
    assert without_thoughts(text) == stripped


def test_thoughts_in_a_field_of_their_own_are_left_out(serve: Callable[..., Server]) -> None:
    message = {"role": "assistant", "content": "SELECT 1", "reasoning_content": "Count? Yes."}
    server = serve(lambda request, times: completion("", message=message))
    assert Endpoint("m", server.url).generate(EXAMPLES[:1]) == ["SELECT 1"]


def test_a_key_that_is_not_set_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert errors(Endpoint("m", "https://example.org/v1")) == [
        "the environment variable OPENAI_API_KEY, which key_env names, is not set; type export "
        'OPENAI_API_KEY=YOUR_KEY, or set key_env = "" if https://example.org/v1 wants no key'
    ]
    assert errors(Endpoint("m", "https://example.org/v1", key_env="")) == []
    assert errors(Endpoint("m", "http://localhost:8000/v1")) == []


def test_a_server_here_may_do_without_a_key(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert Endpoint("m", serve().url).generate(EXAMPLES[:1]) == ["heard say a"]


def test_a_key_in_place_of_its_name_is_refused_and_not_repeated() -> None:
    [problem] = errors(Endpoint("m", key_env=KEY))
    assert problem.startswith("key_env is not the name of an environment variable; name one, such as OPENAI_API_KEY")
    assert KEY not in problem


def test_a_key_that_would_travel_unencrypted_is_warned_of() -> None:
    [finding] = Endpoint("m", "http://example.org/v1").findings()
    assert finding.level == "warning"
    assert finding.text == "the key in OPENAI_API_KEY goes to http://example.org/v1 unencrypted; use https"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"base_url": "localhost:8000"}, 'base_url must look like "http://localhost:8000/v1", got "localhost:8000"'),
        (
            {"base_url": "http://localhost/v1/chat/completions"},
            'base_url is what stands before /chat/completions; use base_url = "http://localhost/v1"',
        ),
        ({"api": "completion", "system": "x"}, 'system is for api = "chat"; put it into the prompt of [dataset]'),
        ({"body": {"temperature": 1}}, "body sets temperature; use the setting temperature of [policy]"),
        ({"body": {"stream": True}}, "body sets stream, which codegym sets itself; leave it out"),
    ],
)
def test_settings_that_cannot_work_are_told_before_anything_starts(settings: dict[str, Any], problem: str) -> None:
    assert errors(dataclasses.replace(Endpoint("m"), **settings)) == [problem]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"api": "completion"},
            'the prompts are chat messages, which api = "completion" does not take; use api = "chat"',
        ),
        ({"system": "x"}, "the prompts bring their own messages; set the system text in [dataset]"),
    ],
)
def test_prompts_that_do_not_suit_the_api_are_refused(settings: dict[str, Any], problem: str) -> None:
    messages: Sequence[Any] = [{"role": "user", "content": "y"}]
    with pytest.raises(ConfigError) as caught:
        Endpoint("m", **settings).prepare([Example(id="test/0", prompt=messages, answer="")])
    assert problem in str(caught.value)


@pytest.mark.parametrize("name", ["gpt-4o", "deepseek-r1", "sqlcoder-70b"])
def test_a_baseline_of_the_paper_has_the_data_and_the_score_of_the_model_that_is_trained(name: str) -> None:
    baseline, trained = load(PAPER / f"{name}.toml"), load(PAPER / "sqlcoder-7b.toml")
    assert list(baseline.policy.findings()) == []
    assert baseline.name == f"paper-{name}"
    tables = ("dataset", "backend", "rewards", "evaluation")
    assert [baseline.resolved[table] for table in tables] == [trained.resolved[table] for table in tables]
    assert "guards" not in baseline.resolved
