"""Declare the policy that asks a server: its settings and what they allow; the requests are in `completions`."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, JsonValue

from codegym import ConfigError, Example, Finding, MissingDependency, Policy
from codegym_endpoint.usage import Usage

logger = logging.getLogger(__name__)

SETTINGS_IN_BODY = ("temperature", "max_tokens")
OURS_IN_BODY = ("model", "messages", "prompt", "stream", "n")
HERE = ("localhost", "127.0.0.1", "::1")
Price = Annotated[float, Field(ge=0)]


@dataclass
class Endpoint(Policy):
    """A model on a server that speaks OpenAI's protocol: OpenAI, DeepSeek, vLLM, `transformers serve` and many others.

    `model`: its name on the server. `base_url`: what stands before `/chat/completions`, OpenAI's by default.
    `api`: "chat" asks /chat/completions and takes plain prompts as a user message, after `system` if that is not empty;
    "completion" asks /completions, for prompts that are plain text and models that continue it.
    `key_env`: the name of the environment variable that holds the key (OPENAI_API_KEY); "" if the server wants none. On
    this machine a server may do without. The key itself is never written anywhere.

    `temperature` 0.0, `max_tokens` 1024 for a completion, thoughts included; 0 sends no `max_tokens`, for models that
    refuse it. `body`: further fields of each request, such as `{seed = 1, top_p = 0.9}`.

    `concurrency`: requests under way at once (8). `attempts` for each (8): a server that is busy (429), failing (5xx)
    or silent for `timeout` seconds (600) is asked again after half a second, then twice as long each time up to eight,
    or when it says, within two minutes. After the last attempt the run stops: a failure is never a completion.

    `price_per_million_input` and `price_per_million_output` (0): what a million tokens cost, in your currency. Tokens
    and cost are counted in `usage` and told at the end. `<think>` sections are not part of the completion.
    """

    model: str
    base_url: str = "https://api.openai.com/v1"
    api: Literal["chat", "completion"] = "chat"
    key_env: str = "OPENAI_API_KEY"
    system: str = ""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    max_tokens: Annotated[int, Field(ge=0)] = 1024
    body: dict[str, JsonValue] = field(default_factory=dict)
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 8
    attempts: Annotated[int, Field(ge=1)] = 8
    timeout: Annotated[float, Field(gt=0)] = 600.0
    price_per_million_input: Price = 0.0
    price_per_million_output: Price = 0.0

    def __post_init__(self) -> None:
        self.usage = Usage(self.price_per_million_input, self.price_per_million_output)

    @property
    def key(self) -> str:
        """The key, or an empty text for a server that wants none; `ConfigError` if there should be one."""
        if self.key_env and not re.fullmatch(r"[A-Za-z_]\w*", self.key_env):
            raise ConfigError(
                "key_env is not the name of an environment variable; name one, such as OPENAI_API_KEY, and keep the "
                "key itself out of run files"
            )
        key = os.environ.get(self.key_env, "") if self.key_env else ""
        if self.key_env and not key and urlsplit(self.base_url).hostname not in HERE:
            raise ConfigError(
                f"the environment variable {self.key_env}, which key_env names, is not set; type "
                f'export {self.key_env}=YOUR_KEY, or set key_env = "" if {self.base_url} wants no key'
            )
        return key

    def findings(self) -> Iterable[Finding]:
        """Yield what is wrong with the address, the key and the fields of `body`, without asking the server."""
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            yield Finding("error", f'base_url must look like "http://localhost:8000/v1", got "{self.base_url}"')
            return
        if found := re.search(r"(/chat)?/completions/?$", self.base_url):
            shorter = self.base_url.removesuffix(found[0])
            yield Finding("error", f'base_url is what stands before {found[0]}; use base_url = "{shorter}"')
        if self.system and self.api == "completion":
            yield Finding("error", 'system is for api = "chat"; put it into the prompt of [dataset]')
        for name in SETTINGS_IN_BODY:
            if name in self.body:
                yield Finding("error", f"body sets {name}; use the setting {name} of [policy]")
        for name in OURS_IN_BODY:
            if name in self.body:
                yield Finding("error", f"body sets {name}, which codegym sets itself; leave it out")
        try:
            key = self.key
        except ConfigError as error:
            yield Finding("error", str(error))
            return
        if key and address.scheme == "http" and address.hostname not in HERE:
            yield Finding("warning", f"the key in {self.key_env} goes to {self.base_url} unencrypted; use https")

    def prepare(self, examples: Sequence[Example]) -> None:
        """Raise `ConfigError` if the prompts do not suit `api`; warn if two samples would be the same."""
        if importlib.util.find_spec("openai") is None:
            raise MissingDependency("endpoint", "openai", "pip install 'codegym[endpoint]'")
        messages = any(not isinstance(example.prompt, str) for example in examples)
        if messages and self.api == "completion":
            raise ConfigError(
                'policy endpoint: the prompts are chat messages, which api = "completion" does not take; use '
                'api = "chat", or a plain text prompt in [dataset]'
            )
        if messages and self.system:
            raise ConfigError("policy endpoint: the prompts bring their own messages; set the system text in [dataset]")
        if self.temperature == 0 and len({example.id for example in examples}) < len(examples):
            logger.warning("several samples of an example at temperature 0 are mostly the same; raise temperature")

    def generate(self, examples: Sequence[Example]) -> list[str]:
        """Return what the server completes, in order; `BackendError` if it gives up, `ConfigError` if it refuses."""
        from codegym_endpoint.completions import complete

        return complete(self, examples)

    def figures(self) -> dict[str, float]:
        """Return the requests that were answered, their tokens and cost, and how many were cut off or not counted."""
        usage = self.usage
        return {
            "requests": usage.requests,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cost": usage.cost,
            "cut_off": usage.cut_off,
            "uncounted": usage.uncounted,
        }

    def close(self) -> None:
        """Tell what was used."""
        if self.usage.requests:
            logger.info("%s: %s", self.model, self.usage)
