"""Ask the server for many completions at once, and say whose mistake it is when it gives none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import openai
from openai.types import Completion
from openai.types.chat import ChatCompletion

from codegym import BackendError, CodegymError, ConfigError, Example

if TYPE_CHECKING:
    from codegym_endpoint.policy import Endpoint

AGAIN = {408, 409, 429}
"""The client errors that `openai` tries again, beside all errors of a server."""
SHOWN = 300
CONNECT_LIMIT = 10.0


def complete(settings: Endpoint, examples: Sequence[Example]) -> list[str]:
    """Return one completion for each example, in order, and count their tokens in `settings.usage`.

    The first request that fails for good cancels the others.
    """
    try:
        return asyncio.run(_complete(settings, examples))
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
        raise first from first.__cause__


async def _complete(settings: Endpoint, examples: Sequence[Example]) -> list[str]:
    # Coroutines and not threads: one that waits for a server can be cancelled.
    client = openai.AsyncOpenAI(
        base_url=settings.base_url,
        api_key=settings.key or "none",  # an empty one is refused by the library
        max_retries=settings.attempts - 1,
        timeout=openai.Timeout(settings.timeout, connect=min(settings.timeout, CONNECT_LIMIT)),
    )
    places = asyncio.Semaphore(settings.concurrency)

    async def one(example: Example) -> str:
        async with places:
            return await _completion(client, settings, example)

    async with client, asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(example)) for example in examples]
    return [task.result() for task in tasks]


async def _completion(client: openai.AsyncOpenAI, settings: Endpoint, example: Example) -> str:
    fields: dict[str, Any] = {"model": settings.model, "temperature": settings.temperature}
    fields |= {"max_tokens": settings.max_tokens} if settings.max_tokens else {}
    fields |= {"extra_body": settings.body}
    answer: Any
    try:
        if settings.api == "chat":
            answer = await client.chat.completions.create(messages=_messages(settings, example), **fields)
        else:
            answer = await client.completions.create(prompt=str(example.prompt), **fields)
    except openai.OpenAIError as error:
        raise _explained(error, settings, example) from error
    if not isinstance(answer, ChatCompletion | Completion):
        raise ConfigError(
            f"policy endpoint: {settings.base_url} answers, but not as an OpenAI server does; set base_url to what "
            "stands before /chat/completions, it often ends in /v1"
        )
    if not answer.choices:
        raise BackendError(f"policy endpoint: {settings.base_url} answered {example.id} without a completion")
    _count(settings, answer)
    text = answer.choices[0].text if isinstance(answer, Completion) else answer.choices[0].message.content
    return without_thoughts(text or "")


def without_thoughts(text: str) -> str:
    """Return the text behind the last `</think>`, all of it if there is none.

    A thought that was cut off stays, so that the record shows it; the grader finds no code in it.
    """
    _, closed, answer = text.rpartition("</think>")
    return answer.lstrip() if closed else text


def _messages(settings: Endpoint, example: Example) -> list[Any]:
    if not isinstance(example.prompt, str):
        return [dict(message) for message in example.prompt]
    system = [{"role": "system", "content": settings.system}] if settings.system else []
    return [*system, {"role": "user", "content": example.prompt}]


def _count(settings: Endpoint, answer: ChatCompletion | Completion) -> None:
    usage = settings.usage
    usage.requests += 1
    usage.cut_off += answer.choices[0].finish_reason == "length"
    if answer.usage is None:
        usage.uncounted += 1
    else:
        usage.input_tokens += answer.usage.prompt_tokens
        usage.output_tokens += answer.usage.completion_tokens


def _explained(error: openai.OpenAIError, settings: Endpoint, example: Example) -> CodegymError:
    """Return the error that says what to change, or that the server is to blame."""
    who = f"policy endpoint: {settings.base_url}"
    told = _told(error).replace(settings.key or "\0", "(the key)")
    if not isinstance(error, openai.APIStatusError):
        return BackendError(f"{who} gave no answer, asked {settings.attempts} times ({told}); is the server running?")
    status = f"{error.status_code}: {told}"
    if error.code == "insufficient_quota":
        return ConfigError(f"{who}: the account of the key in {settings.key_env} has no credit left ({status})")
    if error.status_code in AGAIN or error.status_code >= 500:
        return BackendError(f"{who} gave no completion, asked up to {settings.attempts} times ({status})")
    if error.status_code in (401, 403):
        name = settings.key_env or "key_env"
        advice = f"put a key that may use model {settings.model} into {name}"
        return ConfigError(f"{who} does not accept the key ({status}); {advice}")
    if error.status_code == 404:
        return ConfigError(
            f"{who} has no model {settings.model}, or no api {settings.api} ({status}); set model to one that it "
            "serves, and base_url to what stands before /chat/completions, it often ends in /v1"
        )
    return ConfigError(
        f"{who} does not take the request for {example.id} ({status}); change model, temperature, max_tokens (0 sends "
        "none) or body in [policy], or shorten the prompt in [dataset]"
    )


def _told(error: openai.OpenAIError) -> str:
    """Return in one line what the server or the connection says."""
    told: object = error
    if isinstance(error, openai.APIConnectionError):
        told = error.__cause__ or error
    elif isinstance(error, openai.APIStatusError):
        body = error.body
        told = (body.get("message") or body.get("detail") or body) if isinstance(body, Mapping) else body or error
    return " ".join(str(told).split())[:SHOWN] or type(told).__name__
