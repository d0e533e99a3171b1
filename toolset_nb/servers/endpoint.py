"""One server over HTTP: chat requests in its protocol, retries, limits, and errors told apart.

A model's fault (llama.cpp answers HTTP 500 when a reply breaks the call format) is an answer; an infrastructure fault is a
RequestFailed after its retries. Streaming is not used: a scored reply is taken whole.
"""

import json
import re
import shlex
import threading
import time
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from toolset_nb.errors import ToolsetError
from toolset_nb.servers.kinds import Kind, kinds

MAX_REPLY_BYTES = 8 << 20
LONGEST_WAIT = 30  # seconds that a Retry-After may ask for
OPTIONAL = ("seed", "top_p", "chat_template_kwargs", "think")  # a request works without them


TOOL_ROLE = (
    "role tool"  # of the results of calls that were written as text: OpenAI wants an id, which such calls have not
)


class RequestFailed(ToolsetError, RuntimeError):
    """No usable answer came: refused, timed out, 4xx, or a body that is no chat completion.

    `status` is the HTTP status, 0 without one; `wait` the seconds that the server asks to wait.
    """

    exit_code = 3

    def __init__(self, message: str, status: int = 0, wait: float = 0):
        super().__init__(message)
        self.status, self.wait = status, wait


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
    """A server: `url` without the /v1 part, `model` as the server names it, `kind` what it does differently.

    `context` is the context length in tokens to ask for where a server takes it with the request (Ollama). `dropped` names
    the fields that the server refused and that are no longer sent; `gguf` is the file where this process serves one.
    """

    def __init__(
        self,
        url: str,
        model: str = "",
        timeout: float = 120,
        retries: int = 2,
        api_key: str = "",
        kind: Kind | None = None,
        context: int = 0,
    ):
        self.url, self.model = plain_address(url), model
        self.timeout, self.retries = timeout, retries
        self.kind, self.context = kind or kinds()["openai"], context
        self.dropped: set[str] = set()
        self.gguf: Path | None = None
        self._lock = threading.Lock()
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        limits = httpx.Timeout(timeout, connect=min(timeout, 10))
        pool = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        try:
            self.client = httpx.Client(
                base_url=self.url, timeout=limits, headers=headers, follow_redirects=False, limits=pool
            )
        except httpx.InvalidURL as error:
            raise RequestFailed(f"{url}: no address ({error}); expected one such as http://127.0.0.1:8080") from None

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, *_) -> None:
        self.client.close()

    def models(self) -> list[str]:
        """The names of /v1/models; raises RequestFailed."""
        reply = self.get("/v1/models")
        try:
            return [entry["id"] for entry in reply["data"] or []]
        except (KeyError, TypeError):
            raise RequestFailed(f"{self.url}: the reply is no list of models") from None

    def context_length(self) -> int:
        """Tokens that the loaded model's context holds, 0 when the server does not tell."""
        if self.kind.chat == "ollama" and self.context:
            return self.context  # asked for with every request
        found = self._told(self.kind.context["path"], self.kind.context["keys"])
        return max((value for value in found if type(value) is int), default=0)

    def identity(self) -> str:
        """A hash of what the server tells of weights, template and program behind its model's name; "" when it tells nothing."""
        found = [self._told(path, keys) for path, *keys in self.kind.identity]
        return sha256(json.dumps(found).encode()).hexdigest() if any(found) else ""

    def _told(self, path: str, keys: list[str]) -> list:
        """The values that the server has at `path` along `keys`; none where it does not answer."""
        try:
            return _dig(self.get(path), keys, self.model) if path else []
        except RequestFailed:
            return []

    def get(self, path: str) -> dict:
        """The JSON object at a path; raises RequestFailed."""
        return self._send("GET", path)

    def ask(
        self, messages: list[dict], tools: list[dict] | None = None, schema: dict | None = None, **sampling: Any
    ) -> Answer:
        """One chat completion. `sampling`: temperature, top_p, max_tokens, seed; `schema` constrains the reply.

        A field that the server refuses by name is left out from then on (`dropped`) and the request repeated.
        """
        started = time.perf_counter()
        while True:
            path, body = self.request(messages, tools, schema, **sampling)
            try:
                reply = self._send("POST", path, body)
                break
            except RequestFailed as error:
                refused = self._refused(error, body) if error.status in (400, 422) else None
                if refused is None:
                    raise
                with self._lock:
                    self.dropped.add(refused)
        latency = time.perf_counter() - started
        if fault := reply.get("model_fault"):
            return Answer(None, None, "error", latency, 0, 0, reply, fault)
        try:
            return READERS[self.kind.chat](reply, latency)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            told = str(reply.get("error") or type(error).__name__)[:200]
            raise RequestFailed(f"{self.url}: the reply is no chat completion ({told})") from None

    def _refused(self, error: RequestFailed, body: dict) -> str | None:
        """What of a request the server refuses by name, and has not refused before; None when it is none of it."""
        if any(m["role"] == "tool" for m in body["messages"]) and re.search(r"role '?tool|tool_call", str(error)):
            return TOOL_ROLE
        return next((field for field in OPTIONAL if field in body and field in str(error)), None)

    def request(
        self, messages: list[dict], tools: list[dict] | None = None, schema: dict | None = None, **sampling: Any
    ) -> tuple[str, dict]:
        """(path, body) of a chat request in the server's protocol."""
        if TOOL_ROLE in self.dropped:
            messages = [{"role": "user", "content": m["content"]} if m["role"] == "tool" else m for m in messages]
        if self.kind.chat == "ollama":
            names = {"max_tokens": "num_predict"}
            options = {names.get(key, key): value for key, value in sampling.items()}
            if self.context:
                options["num_ctx"] = self.context
            body = {"model": self.model, "messages": _with_objects(messages), "stream": False, "options": options}
            path, body = "/api/chat", body | ({"format": schema} if schema else {})
        else:
            body = {"model": self.model, "messages": messages, **sampling}
            if schema:
                body["response_format"] = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
            path = "/v1/chat/completions"
        body |= self.kind.sent | ({"tools": tools} if tools else {})
        return path, {key: value for key, value in body.items() if key not in self.dropped}

    def curl(self, messages: list[dict], **options: Any) -> str:
        """The request as a shell command; a key stands in it as a variable's name."""
        path, body = self.request(messages, **options)
        key = (
            f' -H "Authorization: Bearer ${self.kind.name.upper()}_API_KEY"'
            if "authorization" in self.client.headers
            else ""
        )
        text = json.dumps(body, ensure_ascii=False)
        return f"curl {shlex.quote(self.url + path)} -H 'Content-Type: application/json'{key} -d {shlex.quote(text)}"

    def _send(self, method: str, path: str, body: dict | None = None) -> dict:
        attempts = Retrying(
            stop=stop_after_attempt(self.retries + 1),
            wait=_wait,
            retry=retry_if_exception_type(_Transient),
            reraise=True,
        )
        return attempts(self._send_once, method, path, body)

    def _send_once(self, method: str, path: str, body: dict | None) -> dict:
        started = time.perf_counter()
        # escapes, as httpx's own JSON has none: half a surrogate pair that a model wrote cannot be encoded
        content = {"content": json.dumps(body), "headers": {"Content-Type": "application/json"}} if body else {}
        try:
            with self.client.stream(method, path, **content) as response:
                received = bytearray()
                for block in response.iter_bytes():
                    received += block
                    if len(received) > MAX_REPLY_BYTES:
                        raise RequestFailed(f"{self.url}: the reply is larger than {MAX_REPLY_BYTES / 2**20:g} MB")
                    if time.perf_counter() - started > self.timeout:  # httpx limits each read, not their sum
                        raise _Transient(f"{self.url}: no whole reply within {self.timeout:g} s")
        except httpx.HTTPError as error:
            raise _Transient(f"{self.url}: {type(error).__name__}: {error or 'no answer'}") from None
        text = received.decode("utf-8", "replace")
        if response.status_code == 500 and any(words in text for words in self.kind.model_fault):
            return {"model_fault": text[:2000]}
        if response.status_code == 429 or response.status_code >= 500:
            wait = _seconds(response.headers.get("Retry-After", ""))
            raise _Transient(f"{self.url}: HTTP {response.status_code}: {text[:200]}", response.status_code, wait)
        if response.status_code >= 300:
            raise RequestFailed(f"{self.url}: HTTP {response.status_code}: {text[:200]}", response.status_code)
        try:
            reply = json.loads(text)
        except (ValueError, RecursionError):
            raise _Transient(f"{self.url}: the reply is not JSON: {text[:120]!r}") from None
        if not isinstance(reply, dict):
            raise RequestFailed(f"{self.url}: the reply is a JSON {type(reply).__name__}, expected an object")
        return reply


def plain_address(url: str) -> str:
    """An address without a closing slash and without /v1."""
    return url.rstrip("/").removesuffix("/v1")


def _openai_answer(reply: dict, latency: float) -> Answer:
    choice, usage = reply["choices"][0], reply.get("usage") or {}
    message = choice["message"]
    content = message.get("content")
    text = content if content is None or isinstance(content, str) else "".join(map(_part, content))
    counts = (_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
    # an empty list means no call, as null does
    return Answer(text, message.get("tool_calls") or None, choice.get("finish_reason") or "", latency, *counts, reply)


def _ollama_answer(reply: dict, latency: float) -> Answer:
    message = reply["message"]
    counts = (_count(reply.get("prompt_eval_count")), _count(reply.get("eval_count")))
    text, made = message.get("content"), message.get("tool_calls") or None
    if not isinstance(text, str | None):
        raise TypeError("content")
    return Answer(text, made, reply.get("done_reason") or "", latency, *counts, reply)


def _part(part: str | dict) -> str:
    """The text of one part of a content that comes as a list."""
    return part if isinstance(part, str) else part.get("text") or ""


def _count(tokens: Any) -> int:
    """A number of tokens; 0 for what is none."""
    return tokens if type(tokens) is int and tokens > 0 else 0


READERS = {"openai": _openai_answer, "ollama": _ollama_answer}


def _with_objects(messages: list[dict]) -> list[dict]:
    """Messages as Ollama takes them: the arguments of earlier calls as objects, not as JSON in a string."""
    made = []
    for message in messages:
        if message.get("tool_calls"):
            functions = [call["function"] for call in message["tool_calls"]]
            plain = [{"function": {**f, "arguments": json.loads(f["arguments"])}} for f in functions]
            message = {**message, "tool_calls": plain}
        made.append(message)
    return made


def _dig(value: Any, keys: list[str], model: str) -> list:
    """The numbers and texts found along `keys`; * is every entry of a list, the one of `model` alone when it is named."""
    if not keys:
        return [value] if isinstance(value, int | str) else []
    if keys[0] == "*":
        entries = value if isinstance(value, list) else []
        named = [
            e
            for e in entries
            if isinstance(e, dict) and model in (e.get("id"), e.get("key"), e.get("name"), e.get("model"))
        ]
        return [found for entry in named or entries for found in _dig(entry, keys[1:], model)]
    return _dig(value.get(keys[0]), keys[1:], model) if isinstance(value, dict) else []


def _wait(state: Any) -> float:
    """Seconds before the next try: what the server asked for, else growing with chance."""
    asked = getattr(state.outcome.exception(), "wait", 0)
    return min(asked, LONGEST_WAIT) or wait_random_exponential(multiplier=0.2, max=5)(state)


def _seconds(retry_after: str) -> float:
    """A Retry-After header in seconds: a number or a date; 0 for anything else."""
    if re.fullmatch(r"\d{1,6}", retry_after):
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
