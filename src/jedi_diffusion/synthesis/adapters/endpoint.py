"""A prompt writer on any endpoint that speaks OpenAI's chat completions (vLLM, llama.cpp, Ollama, OpenAI)."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.synthesis.protocols import Failure

URL_VARIABLE, KEY_VARIABLE = "OPENAI_BASE_URL", "OPENAI_API_KEY"
PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
"""HTTP states that another trial may overcome."""
HOPELESS = {401, 403, 404, 405}
"""HTTP states that every request will meet: key, address or model are wrong."""
MAX_BYTES = 4_000_000
"""Longest answer that is read."""

Seconds = Annotated[float, Field(gt=0, le=3600)]


class EndpointSettings(BaseModel):
    """How an endpoint is used. `extra` goes into each request as it is (`{"max_tokens": 4000}`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["endpoint"] = "endpoint"
    model: Annotated[str, Field(min_length=1)]
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    extra: dict[str, Any] = Field(default_factory=dict)
    concurrency: PositiveInt = Field(8, le=256, description="requests that are under way at the same time")
    timeout: Seconds = Field(120.0, description="seconds for one trial, until the last byte of its answer")
    trials: PositiveInt = Field(6, le=20, description="times that a request is sent before it is given up")
    first_wait: Seconds = Field(1.0, description="seconds before the second trial; doubled for each further")
    longest_wait: Seconds = Field(60.0, description="most seconds between two trials")


class _PassingError(Exception):
    """A trial failed in a way that may pass; `wait` is what the server asked for, in seconds."""

    def __init__(self, detail: str, wait: float = 0.0) -> None:
        super().__init__(detail)
        self.wait = wait


class _FinalError(Exception):
    """A request failed for good, others may not."""


class EndpointPromptWriter:
    """`PromptWriter` over HTTP: several requests at a time, each tried again with growing, random waits.

    `base_url` ends where "/chat/completions" is appended ("http://localhost:8000/v1"). `key` is sent as
    bearer token if given, and stands in no message, record or fingerprint. Redirects are not followed.

    Raises UsageError for an address or key that cannot be one, ModelError where httpx2 is not installed.
    """

    def __init__(self, settings: EndpointSettings, base_url: str, key: str | None = None) -> None:
        try:
            import httpx2
        except ImportError as error:
            raise ModelError(
                "Prompts from an endpoint need the package httpx2: pip install 'jedi-diffusion[synthesis]'."
            ) from error
        self.settings = settings
        self._url = f"{_checked_url(base_url)}/chat/completions"
        self._error = httpx2.HTTPError
        self._key = _checked_key(key)
        headers = {"Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        # The limit is for one silence of the server; the whole of a trial is timed in `_read`.
        self._client = httpx2.Client(headers=headers, timeout=httpx2.Timeout(settings.timeout))

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

        Raises ModelError where no request can succeed: the key is refused, or address or model are unknown.
        """
        pool = ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="endpoint")
        stop = threading.Event()
        try:
            return list(pool.map(partial(self._write_one, stop), requests, seeds))
        finally:
            stop.set()  # nothing waits for its next trial after Ctrl-C
            pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_one(self, stop: threading.Event, request: str, seed: int) -> str | Failure:
        body = {
            **self.settings.extra,
            "model": self.settings.model,
            "messages": [{"role": "user", "content": request}],
            "temperature": self.settings.temperature,
            "seed": seed,
        }
        last = "not sent"
        for trial in range(1, self.settings.trials + 1):
            if stop.is_set():
                break
            try:
                return self._try(body)
            except ModelError:
                stop.set()
                raise
            except _FinalError as failure:
                return Failure(str(failure))
            except _PassingError as failure:
                wait = max(self._back_off(trial), failure.wait)
                if failure.wait > self.settings.longest_wait:
                    return Failure(
                        f"{failure}; the server asks to wait {failure.wait:.0f} seconds, "
                        f"longer than {self.settings.longest_wait:.0f}"
                    )
                last = f"{failure} (trial {trial} of {self.settings.trials})"
                if trial < self.settings.trials:
                    stop.wait(wait)
        return Failure(last)

    def _back_off(self, trial: int) -> float:
        """Seconds before the next trial: doubled each time, half to all of it, so that trials spread."""
        longest: float = min(self.settings.longest_wait, self.settings.first_wait * 2.0 ** (trial - 1))
        return longest * random.uniform(0.5, 1)

    def _try(self, body: dict[str, Any]) -> str:
        end = time.monotonic() + self.settings.timeout
        try:
            with self._client.stream("POST", self._url, json=body) as response:
                status, headers = response.status_code, response.headers
                data = self._read(response, end)
        except self._error as error:
            raise _PassingError(f"{type(error).__name__}: {error}"[:200]) from error
        if status == 200:
            return _text(self._without_key(data))
        detail = f"HTTP {status}: {_complaint(self._without_key(data))}"
        if status in HOPELESS:
            raise ModelError(f"The endpoint {self._url} refuses all requests, {detail}")
        if status not in PASSING:
            raise _FinalError(detail)
        raise _PassingError(detail, _retry_after(headers.get("Retry-After")))

    def _without_key(self, data: bytes) -> bytes:
        """Some servers repeat in their answers what they were sent."""
        return data.replace(self._key.encode(), b"***") if self._key else data

    def _read(self, response: Any, end: float) -> bytes:
        """The body, until `end` and up to `MAX_BYTES`: a server may send a byte now and then for ever."""
        parts, size = [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > MAX_BYTES:
                raise _FinalError(f"the answer is longer than {MAX_BYTES} bytes")
            if time.monotonic() > end:
                raise _PassingError(f"the answer took longer than {self.settings.timeout:g} seconds")
        return b"".join(parts)


def connect(settings: EndpointSettings, device: str) -> EndpointPromptWriter:
    """The writer as `models_config` builds models; the endpoint has its own device."""
    return EndpointPromptWriter.from_environment(settings)


def _checked_url(base_url: str) -> str:
    """`base_url` without a slash at its end. Raises UsageError."""
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
    """`key` without spaces around it. Raises UsageError for one that no header can carry."""
    key = (key or "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"The key in {KEY_VARIABLE} holds spaces or signs that no key has: copy it again.")
    return key or None


def _text(data: bytes) -> str:
    """The text in a chat completion."""
    try:
        content = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _PassingError(f"the answer is no chat completion: {_complaint(data)}") from error
    if not isinstance(content, str) or not content.strip():
        raise _FinalError("the answer has no text")
    return content


def _complaint(data: bytes) -> str:
    """The beginning of an answer, on one line."""
    return " ".join(data[:1000].decode("utf-8", "replace").split())[:200]


def _retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, given as a number or as a date; 0 where there is none."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
