"""Endpoints that answer chat requests: our own llama.cpp server in this process, or any OpenAI-compatible address.

Errors are told apart: a model's fault (llama.cpp answers HTTP 500 when a reply breaks the call format) is an answer, an
infrastructure fault is a RequestFailed after its retries. Not here: native APIs of single servers.
"""

import contextlib
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

MAX_REPLY_BYTES = 8 << 20


class RequestFailed(RuntimeError):
    """No usable answer came: refused, timed out, 4xx, or a body that is no chat completion."""


class _Transient(RequestFailed):
    """Worth another try: connection trouble, 429, 5xx."""


class Answer(NamedTuple):
    """One reply. Times in seconds; `error` holds a model's fault that the server reported in place of a reply."""

    text: str | None
    tool_calls: list | None
    finish_reason: str
    latency: float
    prompt_tokens: int
    completion_tokens: int
    raw: Any
    error: str = ""


class Endpoint:
    """An OpenAI-compatible server: `url` without the /v1 part, `model` as the server names it."""

    def __init__(self, url: str, model: str = "", timeout: float = 120, retries: int = 2, api_key: str = ""):
        self.url, self.model = url.rstrip("/").removesuffix("/v1"), model
        self.timeout, self.retries = timeout, retries
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        limits = httpx.Timeout(timeout, connect=min(timeout, 10))
        try:
            self.client = httpx.Client(base_url=self.url, timeout=limits, headers=headers, follow_redirects=False)
        except httpx.InvalidURL as error:
            raise RequestFailed(f"{url}: no address ({error}); expected one such as http://127.0.0.1:8080") from None

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, *_) -> None:
        self.client.close()

    def models(self) -> list[str]:
        """The names of /v1/models; raises RequestFailed."""
        reply = self._send("GET", "/v1/models")
        try:
            return [entry["id"] for entry in reply["data"]]
        except (KeyError, TypeError):
            raise RequestFailed(f"{self.url}: the reply is no list of models") from None

    def ask(self, messages: list[dict], **sampling: Any) -> Answer:
        """One chat completion. `sampling` goes into the request as it is (temperature, top_p, max_tokens, seed, tools)."""
        started = time.perf_counter()
        body = {"model": self.model, "messages": messages, **sampling}
        reply = self._send("POST", "/v1/chat/completions", body)
        latency = time.perf_counter() - started
        if fault := reply.get("model_fault"):
            return Answer(None, None, "error", latency, 0, 0, reply, fault)
        try:
            choice, usage = reply["choices"][0], reply.get("usage") or {}
            message = choice["message"]
            content = message.get("content")
            text = (
                content if content is None or isinstance(content, str) else "".join(p.get("text", "") for p in content)
            )
            counts = (usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
            return Answer(text, message.get("tool_calls"), choice.get("finish_reason") or "", latency, *counts, reply)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise RequestFailed(f"{self.url}: the reply is no chat completion ({type(error).__name__})") from None

    def _send(self, method: str, path: str, body: dict | None = None) -> dict:
        attempts = Retrying(
            stop=stop_after_attempt(self.retries + 1),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            retry=retry_if_exception_type(_Transient),
            reraise=True,
        )
        return attempts(self._send_once, method, path, body)

    def _send_once(self, method: str, path: str, body: dict | None) -> dict:
        started = time.perf_counter()
        try:
            with self.client.stream(method, path, json=body) as response:
                content = bytearray()
                for block in response.iter_bytes():
                    content += block
                    if len(content) > MAX_REPLY_BYTES:
                        raise RequestFailed(f"{self.url}: the reply is larger than {MAX_REPLY_BYTES / 2**20:g} MB")
                    if time.perf_counter() - started > self.timeout:  # httpx limits each read, not their sum
                        raise _Transient(f"{self.url}: no whole reply within {self.timeout:g} s")
        except httpx.HTTPError as error:
            raise _Transient(f"{self.url}: {type(error).__name__}: {error or 'no answer'}") from None
        text = content.decode("utf-8", "replace")
        if response.status_code == 500 and ("does not match the expected" in text or "Failed to parse input" in text):
            return {"model_fault": text[:2000]}
        if response.status_code == 429 or response.status_code >= 500:
            raise _Transient(f"{self.url}: HTTP {response.status_code}: {text[:200]}")
        if response.status_code >= 300:
            raise RequestFailed(f"{self.url}: HTTP {response.status_code}: {text[:200]}")
        try:
            reply = json.loads(text)
        except (ValueError, RecursionError):
            raise _Transient(f"{self.url}: the reply is not JSON: {text[:120]!r}") from None
        if not isinstance(reply, dict):
            raise RequestFailed(f"{self.url}: the reply is a JSON {type(reply).__name__}, expected an object")
        return reply


@contextlib.contextmanager
def serve(
    gguf: Path | str, slots: int = 8, context: int = 1536, threads: int = 0, timeout: float = 120, retries: int = 2
):
    """llama.cpp's own HTTP server (xllamacpp) on a free loopback port, as an Endpoint; stopped when the block ends.

    `context` is tokens a slot, `threads` 0 means all cores.
    """
    import os

    import xllamacpp

    threads = threads or os.cpu_count() or 1
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_parallel, params.n_ctx = slots, slots * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.use_jinja, params.warmup, params.verbosity = True, False, -1
    server = xllamacpp.Server(params)
    try:
        with Endpoint(server.listening_address, Path(gguf).stem, timeout, retries) as endpoint:
            yield endpoint
    finally:
        del server
