"""A prompt writer on any endpoint that speaks OpenAI's chat completions (vLLM, llama.cpp, Ollama, OpenAI)."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.synthesis.protocols import Failure

if TYPE_CHECKING:
    from openai import AsyncOpenAI

URL_VARIABLE, KEY_VARIABLE = "OPENAI_BASE_URL", "OPENAI_API_KEY"
HOPELESS = {401, 403, 404, 405}
"""HTTP states that every request will meet: key, address or model are wrong."""
LONGEST_WAIT = 120.0
"""Most seconds that the client waits between two trials, where a server asks for it."""


class EndpointSettings(BaseModel):
    """How an endpoint is used. `extra` goes into each request as it is (`{"max_tokens": 4000}`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["endpoint"] = "endpoint"
    model: Annotated[str, Field(min_length=1)]
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    extra: dict[str, Any] = Field(default_factory=dict)
    concurrency: PositiveInt = Field(8, le=256, description="requests that are under way at the same time")
    timeout: float = Field(120.0, gt=0, le=3600, description="seconds for one trial")
    trials: PositiveInt = Field(6, le=20, description="times that a request is sent before it is given up")


class EndpointPromptWriter:
    """`PromptWriter` over OpenAI's client: several requests at a time, each tried again with growing waits.

    `base_url` ends where "/chat/completions" is appended ("http://localhost:8000/v1"). `key` is sent as
    bearer token if given, and stands in no message, record or fingerprint. Redirects are not followed.

    Raises UsageError for an address or key that cannot be one, ModelError where openai is not installed.
    """

    def __init__(self, settings: EndpointSettings, base_url: str, key: str | None = None) -> None:
        try:
            import openai  # noqa: F401
        except ImportError as error:
            raise ModelError(
                "Prompts from an endpoint need the package openai: pip install 'jedi-diffusion[synthesis]'."
            ) from error
        self.settings = settings
        self._url, self._key = _checked_url(base_url), _checked_key(key)

    @classmethod
    def from_environment(cls, settings: EndpointSettings) -> Self:
        """With address and key from OPENAI_BASE_URL and OPENAI_API_KEY; a local server may need no key.

        Raises UsageError where the address is not set.
        """
        base_url = os.environ.get(URL_VARIABLE)
        if not base_url:
            raise UsageError(
                f"The environment variable {URL_VARIABLE} is not set: give the endpoint's address, "
                "for instance http://localhost:8000/v1."
            )
        return cls(settings, base_url, os.environ.get(KEY_VARIABLE) or None)

    @property
    def fingerprint(self) -> str:
        """Model, host and what is sent with each request."""
        sent = json.dumps({"temperature": self.settings.temperature, **self.settings.extra}, sort_keys=True)
        return f"{self.settings.model} at {urlsplit(self._url).netloc} {sent}"

    def write(self, requests: Sequence[str], seeds: Sequence[int]) -> list[str | Failure]:
        """B answers; a Failure for a request that failed in every trial.

        Runs an event loop of its own, so not inside another one. Raises ModelError where no request can
        succeed: the key is refused, or address or model are unknown.
        """
        return asyncio.run(self._write_all(requests, seeds))

    async def _write_all(self, requests: Sequence[str], seeds: Sequence[int]) -> list[str | Failure]:
        """Return all answers; the first ModelError ends those that still wait, as Ctrl-C does."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        settings, room = self.settings, asyncio.Semaphore(self.settings.concurrency)
        client = AsyncOpenAI(
            base_url=self._url,
            api_key=self._key or "none",
            timeout=settings.timeout,
            max_retries=settings.trials - 1,
            http_client=DefaultAsyncHttpxClient(follow_redirects=False),
        )
        async with client:
            asked = zip(requests, seeds, strict=True)
            return await asyncio.gather(*(self._write_one(client, room, *each) for each in asked))

    async def _write_one(
        self, client: AsyncOpenAI, room: asyncio.Semaphore, request: str, seed: int
    ) -> str | Failure:
        from openai import APIConnectionError, APIStatusError, Omit

        settings = self.settings
        # The client's limit is for one silence of a server, which may send a byte now and then for ever.
        limit = settings.trials * settings.timeout + (settings.trials - 1) * LONGEST_WAIT
        try:
            async with room, asyncio.timeout(limit):
                answer = await client.chat.completions.with_raw_response.create(
                    model=settings.model,
                    messages=[{"role": "user", "content": request}],
                    temperature=settings.temperature,
                    seed=seed,
                    extra_body=settings.extra,
                    extra_headers=None if self._key else {"Authorization": Omit()},
                )
        except APIStatusError as error:
            told = f"HTTP {error.status_code}: {self._complaint(error.response.content)}"
            if error.status_code in HOPELESS:
                raise ModelError(f"The endpoint {self._url} refuses all requests, {told}") from None
            return Failure(told)
        except APIConnectionError as error:
            cause = error.__cause__ or error
            return Failure(f"{type(cause).__name__}: {cause} ({settings.trials} trials)"[:200])
        except TimeoutError:
            return Failure(f"the answer took longer than {limit:g} seconds")
        return self._text(answer.content)

    def _text(self, data: bytes) -> str | Failure:
        """Return the text in a chat completion."""
        try:
            content = json.loads(data)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return Failure(f"the answer is no chat completion: {self._complaint(data)}")
        if not isinstance(content, str) or not content.strip():
            return Failure("the answer has no text")
        return content

    def _complaint(self, data: bytes) -> str:
        """Return the beginning of an answer, on one line; without the key, which some servers repeat."""
        shown = data.replace(self._key.encode(), b"***") if self._key else data
        return " ".join(shown[:1000].decode("utf-8", "replace").split())[:200]


def connect(settings: EndpointSettings, device: str) -> EndpointPromptWriter:
    """Return the writer as `models_config` builds models; the endpoint has its own device."""
    return EndpointPromptWriter.from_environment(settings)


def _checked_url(base_url: str) -> str:
    """Return `base_url` without a slash at its end. Raises UsageError."""
    try:
        parts = urlsplit(base_url.strip())
        plain = (
            parts.scheme in ("http", "https") and parts.hostname and not parts.username and not parts.query
        )
        port = parts.port
    except ValueError:
        plain, port = False, None
    if not plain or port == 0:
        raise UsageError(
            f"The endpoint's address in {URL_VARIABLE} is not usable: write it as http://host:port/v1, "
            f"without name and password, and a key into {KEY_VARIABLE}."
        )
    return base_url.strip().rstrip("/")


def _checked_key(key: str | None) -> str | None:
    """Return `key` without spaces around it. Raises UsageError for one that no header can carry."""
    key = (key or "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"The key in {KEY_VARIABLE} holds spaces or signs that no key has: copy it again.")
    return key or None
