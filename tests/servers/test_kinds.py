"""Stand-ins for LM Studio, Ollama, vLLM and llama.cpp, which cannot be had here: each copies the documented behaviour that matters.

Sources: LM Studio docs (REST v1, tools), Ollama docs (api.md, openai.md), vLLM docs (OpenAI server), llama.cpp tools/server/README.
"""

import json
import re

import pytest
from werkzeug import Request, Response

from toolset_nb.evaluation import load_prompts
from toolset_nb.servers import Endpoint, RequestFailed, connect, kinds
from toolset_nb.servers.kinds import is_server, recognise
from toolset_nb.servers.preflight import preflight
from toolset_nb.settings import EvaluateSettings, SettingsError

ASK = [{"role": "user", "content": "Open the garden note"}]
CALL = {"function": {"name": "vaultManager_openNote", "arguments": {"path": "Garden.md"}}}
PROMPTS = load_prompts("full_coverage")[:2]


def reply(request: Request, text: str = "Hello.", seen: bool = True) -> dict:
    """A chat completion that counts a token for every four characters of what it was sent; tools only when they are `seen`."""
    body = request.get_json()
    size = len(json.dumps(body["messages"])) + (len(json.dumps(body.get("tools", ""))) if seen else 0)
    message = {"role": "assistant", "content": text, "tool_calls": []}  # LM Studio always sends the empty list
    usage = {"prompt_tokens": size // 4, "completion_tokens": 2}
    return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


@pytest.fixture
def lmstudio(httpserver):
    """Port 1234: /api/v1/models tells the loaded context and what a model was trained for; any other path answers 200 and an error
    (lmstudio-ai/lmstudio-bug-tracker, issue 618)."""
    loaded = {"key": "qwen3-8b", "loaded_instances": [{"id": "qwen3-8b", "config": {"context_length": 8192}}]}
    other = {"key": "phi-4", "loaded_instances": []}
    httpserver.expect_request("/api/v1/models").respond_with_json({"models": [loaded, other]})
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": "qwen3-8b"}, {"id": "phi-4"}]})
    httpserver.expect_request("/v1/chat/completions").respond_with_handler(
        lambda request: Response(json.dumps(reply(request)), content_type="application/json")
    )
    httpserver.expect_request(re.compile("/.*")).respond_with_handler(
        lambda request: Response(
            json.dumps({"error": f"Unexpected endpoint or method. ({request.method} {request.path})"})
        )
    )
    return httpserver


@pytest.fixture
def ollama(httpserver):
    """Port 11434: /api/chat takes num_ctx and arguments as objects, answers with done_reason."""

    def chat(request: Request) -> Response:
        body = request.get_json()
        assert not body.keys() - {"model", "messages", "stream", "options", "tools", "format", "think"}
        if body["model"] == "no-tools:latest" and "tools" in body:
            return Response(json.dumps({"error": f"{body['model']} does not support tools"}), status=400)
        for message in body["messages"]:
            for made in message.get("tool_calls", []):
                assert isinstance(made["function"]["arguments"], dict)
        message = {"role": "assistant", "content": "", "tool_calls": [CALL]}
        counts = {"prompt_eval_count": body["options"]["num_ctx"], "eval_count": 5}
        return Response(json.dumps({"message": message, "done": True, "done_reason": "stop", **counts}))

    httpserver.expect_request("/api/version").respond_with_json({"version": "0.33.0"})
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": "qwen3:4b"}]})
    httpserver.expect_request("/api/chat").respond_with_handler(chat)
    return httpserver


@pytest.fixture
def llamacpp(httpserver):
    """Port 8080: /props tells the context of a slot; tools vanish silently when the template has none."""
    httpserver.expect_request("/props").respond_with_json({"default_generation_settings": {"n_ctx": 512}})
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": "model.gguf"}]})
    httpserver.expect_request("/v1/chat/completions").respond_with_handler(
        lambda request: Response(json.dumps(reply(request, seen=False)))
    )
    return httpserver


@pytest.fixture
def vllm(httpserver):
    """Port 8000: /v1/models tells max_model_len; tools are refused without a parser, and so is what does not fit."""

    def refuse(message: str) -> Response:
        error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
        return Response(json.dumps({"error": error}), status=400)

    def chat(request: Request) -> Response:
        if "tools" in request.get_json():
            return refuse('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
        made = reply(request)
        if made["usage"]["prompt_tokens"] > 1000:
            return refuse(
                "This model's maximum context length is 1000 tokens. Please reduce the length of the messages."
            )
        return Response(json.dumps(made))

    httpserver.expect_request("/version").respond_with_json({"version": "0.15.1"})
    listed = {"id": "Qwen/Qwen3-8B", "object": "model", "owned_by": "vllm", "max_model_len": 1000}
    httpserver.expect_request("/v1/models").respond_with_json({"object": "list", "data": [listed]})
    httpserver.expect_request("/v1/chat/completions").respond_with_handler(chat)
    return httpserver


def address(server, path: str = "") -> str:
    return f"http://127.0.0.1:{server.port}{path}"


@pytest.mark.parametrize("name", ["lmstudio", "ollama", "llamacpp", "vllm"])
def test_a_server_is_recognised_by_what_it_answers(name, request):
    server = request.getfixturevalue(name)
    assert recognise(address(server)).name == name
    assert recognise(address(server, "/v1")).name == name


def test_an_unknown_server_is_taken_as_openai_compatible(httpserver):
    httpserver.expect_request("/").respond_with_data("hello")
    assert recognise(address(httpserver)).name == "openai"


def test_a_target_names_kind_address_and_model(lmstudio):
    settings = {"host": "127.0.0.1", "port": lmstudio.port}
    plain = address(lmstudio).removeprefix("http://")
    for target in (f"{address(lmstudio)}#phi-4", f"{plain}#phi-4", f"lmstudio+{plain}/v1#phi-4"):
        with connect(target) as endpoint:
            assert (endpoint.kind.name, endpoint.url, endpoint.model) == ("lmstudio", address(lmstudio), "phi-4")
    with connect("lmstudio", **settings) as endpoint:
        assert (endpoint.url, endpoint.model) == (address(lmstudio), "qwen3-8b")
    assert all(map(is_server, ("ollama#x", "http://h:1", "localhost:1234", "[::1]:80#m", "vllm+box#m")))
    assert not any(map(is_server, ("latest", "latest:sft", "my-run", "runs/a:b", "a+b")))
    with pytest.raises(SettingsError, match="'olama' is no server: expected llamacpp"):
        connect("olama#x")


def test_host_and_port_come_from_the_environment(monkeypatch):
    kind = kinds()["ollama"]
    assert kind.address() == "http://127.0.0.1:11434"
    monkeypatch.setenv("OLLAMA_HOST", "0.0.0.0:9999")  # how Ollama itself is told to listen everywhere
    assert kind.address() == "http://127.0.0.1:9999"
    monkeypatch.setenv("OLLAMA_HOST", "https://box.local")
    monkeypatch.setenv("OLLAMA_PORT", "443")
    assert kind.address() == "https://box.local:443"
    assert kind.address("10.0.0.2", 7) == "http://10.0.0.2:7"


@pytest.mark.parametrize(
    ("host", "found"),
    [
        (":11435", "http://127.0.0.1:11435"),
        ("[::1]:11435", "http://[::1]:11435"),
        ("[::]:11435", "http://[::1]:11435"),
        ("http://box/v1", "http://box:11434"),
    ],
)
def test_a_host_is_read_as_ollama_reads_it(host, found, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert kinds()["ollama"].address() == found


@pytest.mark.parametrize(("name", "value"), [("PORT", "many"), ("HOST", "box:many"), ("HOST", "[::1")])
def test_what_is_no_host_or_port_is_named(name, value, monkeypatch):
    monkeypatch.setenv(f"OLLAMA_{name}", value)
    with pytest.raises(SettingsError, match=f"{re.escape(repr(value))}.*OLLAMA_{name}"):
        kinds()["ollama"].address()


def test_a_key_comes_from_the_environment_of_its_kind(lmstudio, monkeypatch):
    monkeypatch.setenv("LMSTUDIO_API_KEY", "secret-of-lmstudio")
    with connect(f"lmstudio+{address(lmstudio)}#phi-4") as endpoint:
        endpoint.ask(ASK)
        command = endpoint.curl(ASK)
    assert lmstudio.log[-1][0].headers["Authorization"] == "Bearer secret-of-lmstudio"
    assert "$LMSTUDIO_API_KEY" in command and "secret-of-lmstudio" not in command


def test_an_empty_list_of_calls_is_no_call(lmstudio):
    with connect(f"{address(lmstudio)}#phi-4") as endpoint:
        assert endpoint.ask(ASK).tool_calls is None


def test_ollama_is_asked_in_its_own_protocol_with_the_context_that_is_needed(ollama):
    with connect(f"{address(ollama)}#qwen3:4b", context=8192) as endpoint:
        answer = endpoint.ask(ASK, tools=[{"type": "function"}], temperature=0, max_tokens=50, seed=1)
        assert endpoint.context_length() == 8192
    body = ollama.log[-1][0].get_json()
    assert body["options"] == {"temperature": 0, "num_predict": 50, "seed": 1, "num_ctx": 8192}
    assert body["stream"] is False and body["tools"]
    assert answer.tool_calls == [CALL] and (answer.finish_reason, answer.prompt_tokens) == ("stop", 8192)


def test_history_with_calls_reaches_ollama_as_objects(ollama):
    made = {"id": "1", "type": "function", "function": {"name": "a_b", "arguments": '{"path": "x"}'}}
    chat = [*ASK, {"role": "assistant", "content": "", "tool_calls": [made]}, {"role": "tool", "content": "{}"}]
    with connect(f"{address(ollama)}#qwen3:4b", context=4096) as endpoint:
        endpoint.ask(chat)


def test_a_model_of_ollama_without_tools_is_a_failed_request(ollama):
    with (
        connect(f"{address(ollama)}#no-tools:latest", context=4096) as endpoint,
        pytest.raises(RequestFailed) as caught,
    ):
        endpoint.ask(ASK, tools=[{"type": "function"}])
    assert "does not support tools" in str(caught.value)


def test_a_field_that_a_server_refuses_is_left_out_and_remembered(httpserver):
    def chat(request: Request) -> Response:
        body = request.get_json()
        if "seed" in body:
            return Response('{"detail": "Unexpected keys in the request: {\'seed\'}"}', status=422)
        return Response(json.dumps(reply(request)))

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(chat)
    with Endpoint(address(httpserver), "m", retries=0) as endpoint:
        assert endpoint.ask(ASK, seed=1, temperature=0).text == "Hello."
        assert endpoint.ask(ASK, seed=1).text == "Hello."
        assert endpoint.dropped == {"seed"} and len(httpserver.log) == 3


def test_results_go_as_user_messages_to_a_server_that_wants_an_id_with_each(httpserver):
    """As OpenAI answers (community.openai.com, "messages with role 'tool' must be a response to a preceeding message")."""

    def chat(request: Request) -> Response:
        roles = [message["role"] for message in request.get_json()["messages"]]
        if "tool" in roles:
            said = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
            return Response(json.dumps({"error": {"message": said}}), status=400)
        return Response(json.dumps(reply(request, " ".join(roles))))

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(chat)
    history = [*ASK, {"role": "assistant", "content": "<tool_call>"}, {"role": "tool", "content": "{}"}]
    with Endpoint(address(httpserver), "m", retries=0) as endpoint:
        assert endpoint.ask(history).text == endpoint.ask(history).text == "user assistant user"
        assert endpoint.dropped == {"role tool"} and len(httpserver.log) == 3


@pytest.mark.parametrize(
    ("name", "model"), [("ollama", "qwen3:4b"), ("llamacpp", "model.gguf"), ("lmstudio", "qwen3-8b")]
)
def test_other_weights_behind_the_same_name_are_told_apart(name, model, httpserver):
    paths = {
        "ollama": ("/api/tags", {"models": [{"name": "qwen3:4b", "digest": "{}"}, {"name": "phi", "digest": "x"}]}),
        "llamacpp": ("/props", {"model_path": "{}", "chat_template": "t", "build_info": "b1"}),
        "lmstudio": (
            "/api/v1/models",
            {"models": [{"key": "qwen3-8b", "size_bytes": "{}"}, {"key": "p", "size_bytes": 1}]},
        ),
    }
    path, told = paths[name]
    found = []
    for value in ("a", "a", "b"):
        httpserver.clear()
        httpserver.expect_request(path).respond_with_json(json.loads(json.dumps(told).replace("{}", value)))
        with Endpoint(address(httpserver), model, retries=0, kind=kinds()[name]) as endpoint:
            found.append(endpoint.identity())
    assert found[0] == found[1] != found[2] and "" not in found
    with Endpoint("http://127.0.0.1:9", model, retries=0, kind=kinds()[name]) as endpoint:
        assert endpoint.identity() == ""


def test_a_schema_that_a_server_refuses_is_never_left_out(httpserver):
    httpserver.expect_request("/v1/chat/completions").respond_with_data("response_format is unknown", status=400)
    with Endpoint(address(httpserver), "m", retries=0) as endpoint, pytest.raises(RequestFailed):
        endpoint.ask(ASK, schema={"type": "object"})
    assert endpoint.dropped == set()


def test_the_fault_of_a_model_is_told_in_the_words_of_its_server(httpserver):
    said = {"error": "error parsing tool call: raw='{\"path\": ', err=unexpected end of JSON input"}
    httpserver.expect_request("/api/chat").respond_with_json(said, status=500)
    httpserver.expect_request("/v1/chat/completions").respond_with_json(said, status=500)
    with Endpoint(address(httpserver), "m", retries=0, kind=kinds()["ollama"]) as endpoint:
        assert "error parsing tool call" in endpoint.ask(ASK).error
    with Endpoint(address(httpserver), "m", retries=0, kind=kinds()["vllm"]) as endpoint, pytest.raises(RequestFailed):
        endpoint.ask(ASK)


def test_vllm_says_when_tools_have_no_parser_and_when_the_context_is_full(vllm):
    with connect(f"{address(vllm)}#Qwen/Qwen3-8B", retries=0) as endpoint:
        assert endpoint.context_length() == 1000 and endpoint.ask(ASK).text == "Hello."
        with pytest.raises(RequestFailed, match="--tool-call-parser") as refused:
            endpoint.ask(ASK, tools=[{"type": "function"}])
        with pytest.raises(RequestFailed) as outgrown:
            endpoint.ask([{"role": "user", "content": "long " * 2000}])
        told = [any(words in str(e.value) for words in endpoint.kind.overflow) for e in (refused, outgrown)]
    assert told == [False, True]


def checks(card) -> dict[str, bool | None]:
    return {check.name: check.ok for check in card.checks}


def test_the_card_of_a_server_that_is_fit(lmstudio):
    settings = EvaluateSettings(tool_exposure="all", tools_as="api", max_tokens=100)
    card = preflight(f"{address(lmstudio)}#qwen3-8b", settings, PROMPTS)
    assert checks(card) == {"answers": True, "model": True, "context": True, "tools": True, "a first reply": None}
    assert card.ready and card.models == ["qwen3-8b", "phi-4"]
    assert "✓ context: 8192 tokens" in str(card) and "LM Studio" in card._repr_html_()


def test_the_first_reply_of_a_card_is_asked_for_as_an_evaluation_asks(lmstudio):
    settings = EvaluateSettings(
        temperature=0.3, top_p=0.9, seed=7, constrained=True, tool_exposure="all", tools_as="api"
    )
    preflight(f"{address(lmstudio)}#qwen3-8b", settings, PROMPTS)
    asked = lmstudio.log[-1][0].get_json()
    assert (asked["temperature"], asked["top_p"], asked["seed"]) == (0.3, 0.9, 7)
    assert asked["tools"] and "response_format" in asked


def test_the_card_says_in_plain_words_what_to_do(llamacpp):
    settings = EvaluateSettings(tool_exposure="all", tools_as="api")
    card = preflight(f"{address(llamacpp)}#another", settings, PROMPTS)
    found = checks(card)
    assert (found["model"], found["context"], found["tools"]) == (False, False, False) and not card.ready
    text = str(card)
    assert "--chat-template-file" in text and "larger -c" in text and "model.gguf" in text


def test_the_card_of_a_server_that_is_not_there():
    card = preflight("ollama+http://127.0.0.1:9#m", EvaluateSettings(), PROMPTS)
    assert checks(card) == {"answers": False} and "ollama serve" in str(card)
    card = preflight("http://127.0.0.1:9", EvaluateSettings(), PROMPTS)
    assert checks(card) == {"answers": False}


def test_another_programs_model_is_checked_with_the_tools_of_an_agent_shown(llamacpp):
    card = preflight(f"{address(llamacpp)}#model.gguf", EvaluateSettings(), PROMPTS)
    assert "– tools: in the system message" in str(card)
    card = preflight(f"{address(llamacpp)}#model.gguf", EvaluateSettings(tool_exposure="none"), PROMPTS)
    assert "– tools: not shown" in str(card)


def test_tools_that_are_not_sent_need_not_be_seen(llamacpp):
    card = preflight(f"{address(llamacpp)}#model.gguf", EvaluateSettings(), PROMPTS)
    assert checks(card)["tools"] is None


def test_every_kind_has_all_its_words():
    for kind in kinds().values():
        assert kind.title and kind.tools and kind.length and kind.start and kind.chat in ("openai", "ollama")


def test_a_base_that_can_think_is_asked_not_to():
    sent = {
        name: Endpoint("http://127.0.0.1:1", "m", kind=kinds()[name]).request([])[1]
        for name in ("llamacpp", "vllm", "ollama", "lmstudio")
    }
    assert (
        sent["llamacpp"]["chat_template_kwargs"] == sent["vllm"]["chat_template_kwargs"] == {"enable_thinking": False}
    )
    assert sent["ollama"]["think"] is False and "chat_template_kwargs" not in sent["lmstudio"]
