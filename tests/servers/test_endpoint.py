"""Servers: a model's fault is an answer, an infrastructure fault a RequestFailed; and one real llama.cpp server."""

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from toolset_nb import export
from toolset_nb.servers import Endpoint, RequestFailed, serve
from toolset_nb.servers import endpoint as endpoints

ASK = [{"role": "user", "content": "Open the garden note"}]


def completion(message: dict, **choice) -> dict:
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    return {"choices": [{"message": message, "finish_reason": "stop", **choice}], "usage": usage}


@contextlib.contextmanager
def scripted(*script, **options):
    """(endpoint, requests seen) of a server that gives the replies of `script` in turn, the last one for ever.

    A reply is (status, body, headers); a body that is no text is sent as JSON; a function is called with the handler.
    """
    seen, release = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            size = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(size)
            step = script[min(len(seen), len(script) - 1)]
            seen.append({"path": self.path, "body": json.loads(body or "null"), "headers": dict(self.headers)})
            if callable(step):
                step(self, release)
                return
            status, reply, headers = (*step, {})[:3]
            content = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):  # the client may have read enough
                self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with Endpoint(
            f"http://127.0.0.1:{server.server_port}", "m", **{"retries": 0, "timeout": 5, **options}
        ) as endpoint:
            yield endpoint, seen
    finally:
        release.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_reply_comes_with_its_tokens_and_time_and_the_request_is_what_was_asked():
    with scripted((200, completion({"content": "Done."}))) as (endpoint, seen):
        answer = endpoint.ask(ASK, temperature=0, seed=42)
    assert (answer.text, answer.finish_reason, answer.tool_calls) == ("Done.", "stop", None)
    assert (answer.prompt_tokens, answer.completion_tokens, answer.error) == (5, 3, "")
    assert answer.latency > 0 and answer.raw == completion({"content": "Done."})
    assert seen[0]["path"] == "/v1/chat/completions"
    assert seen[0]["body"] == {"model": "m", "messages": ASK, "temperature": 0, "seed": 42}


CALLS = [{"type": "function", "function": {"name": "a_b", "arguments": "{}"}}]
READABLE = {
    "90 content parts": (
        completion({"content": [{"type": "text", "text": "Do"}, {"type": "text", "text": "ne."}]}),
        "Done.",
    ),
    "90 parts that are words, and one without": (completion({"content": ["Do", "ne.", {"text": None}]}), "Done."),
    "no content": (completion({"content": None, "tool_calls": CALLS}), None),
    "91 no finish_reason": ({"choices": [{"message": {"content": "Done."}}]}, "Done."),
    "91 finish_reason null, usage null": ({**completion({"content": ""}, finish_reason=None), "usage": None}, ""),
}


@pytest.mark.parametrize(("body", "text"), READABLE.values(), ids=READABLE)
def test_the_usual_variants_of_a_completion_are_read(body, text):
    with scripted((200, body)) as (endpoint, _):
        answer = endpoint.ask(ASK)
    assert answer.text == text and answer.tool_calls == body["choices"][0]["message"].get("tool_calls")


@pytest.mark.parametrize("count", ["12", None, True, -3, 1.5, [7]], ids=str)
def test_tokens_are_counted_in_whole_numbers_only(count):
    usage = {"prompt_tokens": count, "completion_tokens": 4}
    with scripted((200, {**completion({"content": "Done."}), "usage": usage})) as (endpoint, _):
        answer = endpoint.ask(ASK)
    assert (answer.prompt_tokens, answer.completion_tokens) == (0, 4)


def test_half_a_surrogate_pair_in_the_history_is_sent():
    with scripted((200, completion({"content": "Done."}))) as (endpoint, seen):
        assert endpoint.ask([*ASK, {"role": "assistant", "content": "\ud83d"}]).text == "Done."
    assert seen[0]["body"]["messages"][1]["content"] == "\ud83d"
    assert seen[0]["headers"]["Content-Type"] == "application/json"


UNUSABLE = {
    "126 HTML with 200": ((200, "<html>Welcome</html>"), "not JSON: '<html>"),
    "127 truncated JSON": ((200, '{"choices": [{"mess'), "not JSON"),
    "127 shorter than announced": ((200, "{}", {"Content-Length": "99"}), "RemoteProtocolError|ReadTimeout"),
    "83 nested too deeply": ((200, "[" * 100_000), "not JSON"),
    "129 no choices": ((200, {"id": "x"}), "no chat completion"),
    "an error with 200": ((200, {"error": "context length of only 4096 tokens"}), "of only 4096 tokens"),
    "129 choices null": ((200, {"choices": None}), "no chat completion"),
    "129 choices empty": ((200, {"choices": []}), "no chat completion"),
    "129 no message": ((200, {"choices": [{"text": "old"}]}), "no chat completion"),
    "90 content is a number": ((200, completion({"content": 7})), "no chat completion"),
    "a JSON list": ((200, [1]), "a JSON list, expected an object"),
    "JSON null": ((200, "null"), "a JSON NoneType, expected an object"),
    "131 too long a prompt": ((400, "the request exceeds the available context size"), "HTTP 400: .*context size"),
    "130 unknown model": ((404, "model not found"), "HTTP 404: model not found"),
    "401": ((401, "no key"), "HTTP 401"),
    "132 redirect to another host": ((302, "", {"Location": "http://203.0.113.1/"}), "HTTP 302"),
}


@pytest.mark.parametrize(("step", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_reply_that_is_no_completion_is_a_failed_request(step, words):
    with scripted(step) as (endpoint, seen), pytest.raises(RequestFailed, match=words) as caught:
        endpoint.ask(ASK)
    assert endpoint.url in str(caught.value) and len(str(caught.value)) < 400
    assert len(seen) == 1


FAULT = "The model produced output that does not match the expected peg-native format"


def test_a_models_fault_that_the_server_reports_is_an_answer_and_asked_once():
    with scripted((500, {"error": {"message": FAULT}}), retries=2) as (endpoint, seen):
        answer = endpoint.ask(ASK)
    assert FAULT in answer.error and (answer.text, answer.tool_calls, answer.finish_reason) == (None, None, "error")
    assert len(seen) == 1


@pytest.mark.parametrize(
    "step",
    [(500, "oops"), (502, "<html>"), (503, "loading"), (429, "slow down"), (500, "Failed to parse messages: no role")],
    ids=lambda step: f"{step[0]} {step[1]}",
)
def test_125_trouble_of_the_server_is_retried_and_then_a_failed_request(step):
    with scripted(step, retries=2) as (endpoint, seen), pytest.raises(RequestFailed, match=f"HTTP {step[0]}"):
        endpoint.ask(ASK)
    assert len(seen) == 3


def test_125_what_a_server_asks_to_wait_is_waited_and_no_longer_than_the_limit(monkeypatch):
    slept = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    script = (503, "", {"Retry-After": "7"}), (429, "", {"Retry-After": "999"}), (200, completion({"content": "Done."}))
    with scripted(*script, retries=2) as (endpoint, _):
        assert endpoint.ask(ASK).text == "Done."
    assert slept == [7, endpoints.LONGEST_WAIT]


def test_135_a_server_that_recovers_is_heard():
    with scripted((503, "loading"), (200, completion({"content": "Done."})), retries=2) as (endpoint, seen):
        assert endpoint.ask(ASK).text == "Done."
    assert len(seen) == 2


def test_a_request_at_fault_is_not_retried():
    with scripted((400, "bad"), retries=2) as (endpoint, seen), pytest.raises(RequestFailed):
        endpoint.ask(ASK)
    assert len(seen) == 1


def test_121_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        Endpoint(f"http://127.0.0.1:{port}", retries=0) as endpoint,
        pytest.raises(RequestFailed, match="ConnectError"),
    ):
        endpoint.ask(ASK)


@pytest.mark.parametrize("url", ["http://[::1", "http://host:port", "nonsense"])
def test_what_is_no_address_is_a_failed_request(url):
    with pytest.raises(RequestFailed, match="nonsense|no address"), Endpoint(url, retries=0) as endpoint:
        endpoint.ask(ASK)


def silent(handler, release):
    release.wait(5)


def dripping(handler, release):
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        while not release.wait(0.02):
            handler.wfile.write(b" ")


@pytest.mark.parametrize("step", [silent, dripping], ids=["123 never answers", "124 a byte now and then"])
def test_a_server_too_slow_times_out(step):
    with scripted(step, timeout=0.2) as (endpoint, _), pytest.raises(RequestFailed, match="ReadTimeout|no whole reply"):
        endpoint.ask(ASK)


def test_133_a_reply_larger_than_the_cap_is_refused_once(monkeypatch):
    monkeypatch.setattr(endpoints, "MAX_REPLY_BYTES", 1 << 16)
    large = pytest.raises(RequestFailed, match="larger than 0.0625 MB")
    with scripted((200, "x" * (1 << 17)), retries=2) as (endpoint, seen), large:
        endpoint.ask(ASK)
    assert len(seen) == 1


def test_models_are_the_names_of_the_list_and_the_url_may_end_in_v1():
    with scripted((200, {"data": [{"id": "a"}, {"id": "b"}]})) as (endpoint, seen):
        assert endpoint.models() == ["a", "b"]
        assert seen[0]["path"] == "/v1/models"
    assert Endpoint("http://127.0.0.1:9/v1/").url == "http://127.0.0.1:9"


@pytest.mark.parametrize("body", [{}, {"data": [1]}, {"data": [{}]}])
def test_a_list_of_models_that_is_none_is_a_failed_request(body):
    with scripted((200, body)) as (endpoint, _), pytest.raises(RequestFailed, match="no list of models"):
        endpoint.models()


def test_a_key_goes_into_the_header_and_never_into_an_error():
    with scripted((401, "no"), api_key="sk-secret") as (endpoint, seen), pytest.raises(RequestFailed) as caught:
        endpoint.ask(ASK)
    assert seen[0]["headers"]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in str(caught.value)


def test_a_real_llama_cpp_server_answers_counts_tokens_and_stops_with_the_block(tiny_model):
    with serve(export.base_gguf(str(tiny_model)), slots=1, context=256, threads=1) as endpoint:
        assert endpoint.url.startswith("http://127.0.0.1:")
        assert len(endpoint.models()) == 1
        answer = endpoint.ask(ASK, max_tokens=4, temperature=0)
        again = endpoint.ask(ASK, max_tokens=4, temperature=0)
    assert isinstance(answer.text, str) and answer.text == again.text
    assert answer.finish_reason == "length" and answer.completion_tokens == 4
    assert answer.prompt_tokens > 5
    with Endpoint(endpoint.url, retries=0, timeout=2) as later, pytest.raises(RequestFailed):
        later.models()
