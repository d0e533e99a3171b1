"""Models answered by this process: llama.cpp's own HTTP server (xllamacpp), or transformers in batches.

The first is how a GGUF runs anywhere, the second shows the trained weights themselves, before any conversion.
"""

import contextlib
import os
import queue
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from toolset_nb.models import around_answer
from toolset_nb.servers.endpoint import Answer, Endpoint, RequestFailed
from toolset_nb.servers.kinds import kinds

END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "</s>")


@contextlib.contextmanager
def serve(
    gguf: Path | str,
    slots: int = 8,
    context: int = 4096,
    threads: int = 0,
    timeout: float = 120,
    retries: int = 2,
    lora: Path | None = None,
    template: str = "",
):
    """llama.cpp's own HTTP server on a free loopback port, as an Endpoint; stopped when the block ends.

    `context` is tokens a slot, `threads` 0 means all cores. `lora` is a GGUF adapter laid over the model, `template` a chat
    template in place of the model's.
    """
    import xllamacpp

    threads = threads or os.cpu_count() or 1
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_parallel, params.n_ctx = slots, slots * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.use_jinja, params.warmup, params.verbosity = True, False, -1
    params.chat_template = template
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora))] if lora else []
    server = xllamacpp.Server(params)
    try:
        kind = kinds()["llamacpp"]
        with Endpoint(server.listening_address, Path(gguf).stem, timeout, retries, kind=kind) as endpoint:
            endpoint.gguf = Path(gguf)
            yield endpoint
    finally:
        del server


class Batches:
    """A transformers model as an endpoint: requests of several threads are answered together, up to `size` at a time."""

    url = "transformers, in this process"
    kind, dropped, gguf = kinds()["transformers"], frozenset(), None

    def __init__(self, model: Any, tokenizer: Any, name: str, size: int = 8):
        self.network, self.tokenizer, self.model, self.size = model, tokenizer, name, size
        self._waiting: queue.Queue = queue.Queue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join()

    def context_length(self) -> int:
        """Tokens that the model was made for."""
        return getattr(self.network.config, "max_position_embeddings", 0)

    def ask(
        self, messages: list[dict], tools: list[dict] | None = None, schema: dict | None = None, **sampling: Any
    ) -> Answer:
        """One reply; raises RequestFailed for what this engine cannot do (a schema) or when the template or model fails."""
        if schema:
            raise RequestFailed("a reply constrained by a schema needs a server such as llama.cpp")
        started, future = time.perf_counter(), Future()
        try:
            given = {"tools": tools, **self.kind.sent["chat_template_kwargs"]}
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **given)
            opening, _ = around_answer(self.tokenizer)
        except Exception as error:  # a template raises whatever its author wrote
            raise RequestFailed(f"{self.model}: the chat template: {type(error).__name__}: {error}") from None
        self._waiting.put((text, sampling, future))
        reply, asked, made, cut = future.result()
        latency = time.perf_counter() - started
        words = reply.removeprefix(opening)
        return Answer(words, None, "length" if cut else "stop", latency, asked, made, {"text": reply})

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            time.sleep(0.01)  # the other threads' requests come within milliseconds of one another
            while len(batch) < self.size and not self._waiting.empty():
                item = self._waiting.get()
                if item is None or item[1] != first[1]:  # other sampling: a batch of its own
                    self._waiting.put(item)
                    break
                batch.append(item)
            try:
                for (*_, future), reply in zip(batch, self._generate([b[0] for b in batch], **first[1]), strict=True):
                    future.set_result(reply)
            except Exception as error:  # whoever waits has to hear of it, whatever it is
                for *_, future in batch:
                    future.set_exception(RequestFailed(f"{self.model}: {type(error).__name__}: {error}"))

    def _generate(
        self, texts: list[str], temperature: float = 0, top_p: float = 1, max_tokens: int = 320, seed: int = 0, **_: Any
    ) -> list[tuple[str, int, int, bool]]:
        """(text, prompt tokens, new tokens, whether it was cut) of each prompt."""
        import torch

        torch.manual_seed(seed)
        self.tokenizer.padding_side = "left"
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = inputs.to(self.network.device)
        options = (
            {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature else {"do_sample": False}
        )
        known = {token for token in END_OF_TURN if token in self.tokenizer.get_vocab()}
        ends = {*self.tokenizer.convert_tokens_to_ids(sorted(known)), self.tokenizer.eos_token_id}
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        with torch.inference_mode():
            out = self.network.generate(
                **inputs, max_new_tokens=max_tokens, eos_token_id=sorted(ends), pad_token_id=pad, **options
            )
        replies = []
        for row, mask in zip(out[:, inputs["input_ids"].shape[1] :].tolist(), inputs["attention_mask"], strict=True):
            end = next((at for at, token in enumerate(row) if token in ends), len(row))
            text = self.tokenizer.decode(row[:end], skip_special_tokens=False)
            replies.append((text, int(mask.sum()), min(end + 1, len(row)), end == len(row)))
        return replies
