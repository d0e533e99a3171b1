"""transformers as an endpoint: replies do not depend on their batch; and a real server that is forced into a schema."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from toolset_nb import calls, export, models
from toolset_nb.evaluation.prompts import reply_schema
from toolset_nb.servers import Batches, RequestFailed, serve

QUESTIONS = [[{"role": "user", "content": f"Open note {number}" + " please" * number}] for number in range(5)]


@pytest.fixture(scope="module")
def batches(tiny_model):
    network, tokenizer = models.for_generation(str(tiny_model))
    with Batches(network, tokenizer, "tiny", size=4) as endpoint:
        yield endpoint


def test_replies_do_not_depend_on_their_batch(batches):
    alone = [batches.ask(chat, max_tokens=6, temperature=0).text for chat in QUESTIONS]
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(lambda chat: batches.ask(chat, max_tokens=6, temperature=0), QUESTIONS))
    assert [answer.text for answer in together] == alone
    assert [answer.completion_tokens for answer in together] == [6] * 5
    assert {answer.finish_reason for answer in together} == {"length"}
    assert together[4].prompt_tokens > together[0].prompt_tokens > 5


def test_a_chat_template_that_raises_is_a_failed_request(batches, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("roles must alternate")

    monkeypatch.setattr(batches.tokenizer, "apply_chat_template", refuse)
    with pytest.raises(RequestFailed, match="the chat template: ValueError: roles must alternate"):
        batches.ask(QUESTIONS[0])


def test_what_transformers_cannot_do_is_said(batches):
    with pytest.raises(RequestFailed, match="needs a server"):
        batches.ask(QUESTIONS[0], schema={"type": "object"})
    with pytest.raises(RequestFailed, match="tiny: "):
        batches.ask(QUESTIONS[0], max_tokens=-1)
    assert batches.context_length() == 2048


def test_a_real_server_forces_even_a_random_model_into_the_schema(tiny_model):
    with serve(export.base_gguf(str(tiny_model)), slots=1, context=2048, threads=1) as endpoint:
        answer = endpoint.ask(QUESTIONS[0], schema=reply_schema(), max_tokens=60, temperature=0, seed=1)
        assert endpoint.context_length() == 2048 and endpoint.kind.name == "llamacpp"
    start = "".join(answer.text.split())  # blanks are free in JSON
    assert start.startswith(('{"text":', '{"name":"')), answer.text
    assert calls.parse(answer.text).kind in ("text", "malformed", "call")
