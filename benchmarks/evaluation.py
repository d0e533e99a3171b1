"""How much faster eight requests at a time are than one by one, and what our client costs beside the server; ratios of one run.

python benchmarks/evaluation.py [TARGET]. The 47 prompts on the embedded model (or TARGET) and a real llama.cpp server. The client's
share is what is left of the wall time when the server's own time for every request is taken away, one request at a time.
"""

import sys
import time

from toolset_nb import evaluation
from toolset_nb.settings import EvaluateSettings


def measure(target: str, slots: int, prompts: list[dict]) -> tuple[float, float, int]:
    """(seconds of wall time, seconds that the server says it worked, tokens written) for all prompts."""
    settings = EvaluateSettings(targets=target, slots=slots, max_tokens=160)
    with evaluation.open_target(target, settings) as (_, endpoint):
        evaluation.evaluate(endpoint, prompts[:slots], settings)  # the model is in memory, the caches are warm
        started = time.perf_counter()
        records = evaluation.evaluate(endpoint, prompts, settings)
        wall = time.perf_counter() - started
    timings = [record.raw_response.get("timings", {}) for record in records if record.raw_response]
    server = sum(each.get("prompt_ms", 0) + each.get("predicted_ms", 0) for each in timings) / 1000
    return wall, server, sum(record.completion_tokens for record in records)


def main() -> None:
    target = sys.argv[1] if len(sys.argv) > 1 else "base"
    prompts = evaluation.load_prompts("full_coverage")
    one, server, tokens = measure(target, 1, prompts)
    eight, _, more = measure(target, 8, prompts)
    print(f"{target}, {len(prompts)} prompts, at most 160 new tokens each")
    print(f"one by one: {one:.1f} s, {tokens / one:.0f} tokens/s; the server worked {server:.1f} s of it")
    print(f"eight slots: {eight:.1f} s, {more / eight:.0f} tokens/s")
    print(f"ratio: {one / eight:.2f} times as fast; client and HTTP beside the server: {one / server - 1:.2%}")


if __name__ == "__main__":
    main()
