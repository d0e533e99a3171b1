"""KTO pairs from a model's own mistakes: the right answer of a row, and what the model answered in its place.

`negatives` makes wrong answers by rule; some a trained model would never give. Here it is asked the last turn of true rows (so no
evaluation prompt can get in), and its answer is compared with the row's: words where calls are due, calls where words are,
other tools or other arguments (as `tasks.agree` compares them). Words are not judged against other words.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from toolset_nb import calls, rows, rules
from toolset_nb.evaluation.agent import read
from toolset_nb.evaluation.prompts import request_options
from toolset_nb.evaluation.verdicts import said
from toolset_nb.settings import EvaluateSettings
from toolset_nb.tasks import agree
from toolset_nb.tools import catalogue

CALLED = {"unable": "call_when_unable", "small_talk": "call_on_small_talk"}  # behaviour -> the defect of a call in it
IDS = ("sessionId", "workspaceId")


def pairs(
    source: list[dict],
    endpoint: Any,
    settings: EvaluateSettings,
    told: Callable[[int, int], None] = lambda done, all_: None,
) -> Iterator[dict]:
    """Two rows, the true one first, for each true row of `source` that the model gets wrong; `told` hears (done, all).

    Raises RequestFailed when the server gives no answer.
    """
    true = [row for row in source if row.get("label") is True]
    rendering = (settings.call_format, settings.context_source, settings.tool_exposure)
    prompts = [rows.prompt_completion(row, *rendering, knowable=True)[-1]["prompt"] for row in true]
    lock, done = threading.Lock(), Counter()

    def ask(prompt: list[dict]) -> calls.Reply:
        answer = endpoint.ask(prompt, **request_options(settings))
        with lock:
            done["all"] += 1
            told(done["all"], len(true))
        return read(answer)

    with ThreadPoolExecutor(settings.slots) as pool:
        for number, (row, reply) in enumerate(zip(true, pool.map(ask, prompts), strict=True)):
            if wrong := negative(row, reply):
                stem = f"own-{number:05d}"
                yield {**row, "id": f"{stem}a"}
                yield {**wrong, "id": f"{stem}b"}


def negative(row: dict, reply: calls.Reply) -> dict | None:
    """The false row of a wrong reply; None for a right one, one that cannot be judged, or one that breaks a row's rules."""
    request, answer = row["conversations"][:-1], row["conversations"][-1]
    blocks = calls.parse(answer["content"], rescue=False).blocks
    cut = max((at + 1 for at, block in enumerate(blocks) if isinstance(block, calls.Result)), default=0)
    due = [block for block in blocks[cut:] if isinstance(block, calls.Call)]
    earlier = [block for block in blocks[:cut] if isinstance(block, calls.Call)]
    defect = _defect(row["meta"]["behaviour"], due, reply, earlier)
    if not defect:
        return None
    context = next((call.arguments.get("context", {}) for call in [*due, *earlier]), {})
    own = {key: context[key] for key in IDS if key in context}  # which ids it makes up is not what was wrong
    given = [_with_ids(block, own) if isinstance(block, calls.Call) else block for block in reply.blocks]
    meta = {key: value for key, value in row["meta"].items() if key != "result"} | {"defect": defect}
    turn = {**answer, "content": calls.render([*blocks[:cut], *given], "text")}
    wrong = {"id": "own", "conversations": [*request, turn], "label": False, "meta": meta}
    return None if any(rules.check_row(wrong, row)) else wrong


def _defect(behaviour: str, due: list[calls.Call], reply: calls.Reply, earlier: list[calls.Call]) -> str:
    """What is wrong with a reply, in the words of `rules.DEFECTS`; "" when nothing is, or nothing that can be judged."""
    if reply.kind not in ("call", "text_call", "text") or reply.rescued:
        return ""
    if not reply.calls:
        return "" if not due else "needless_question" if said(reply.text) == "ask" else "text_without_call"
    if not due:
        repeated = any(call.name == before.name for call in reply.calls for before in earlier)
        return "repeated_call" if repeated else CALLED.get(behaviour, "call_without_asking")
    problems = [problem for call in reply.calls for problem in catalogue().check(call.name, call.arguments)]
    for problem in problems:
        if problem.field == "name":
            return "unknown_tool"
        if not problem.field.startswith("arguments.context"):
            missing, unknown = problem.found in ("nothing", "none of these"), problem.found == "an unknown parameter"
            return "missing_argument" if missing else "unknown_argument" if unknown else "wrong_type"
    if problems:
        return "missing_context"
    if Counter(call.name for call in due) != Counter(call.name for call in reply.calls):
        fewer = not Counter(call.name for call in reply.calls) - Counter(call.name for call in due)
        return "unfinished" if fewer else "wrong_tool"
    same = all(_same(one, other) for one, other in zip(due, reply.calls, strict=True))
    return "" if same else "wrong_argument"


def _same(wanted: calls.Call, given: calls.Call) -> bool:
    plain = [{key: value for key, value in call.arguments.items() if key != "context"} for call in (wanted, given)]
    return wanted.name == given.name and plain[0].keys() == plain[1].keys() and agree(wanted.name, *plain)


def _with_ids(call: calls.Call, own: dict[str, str]) -> calls.Call:
    context = call.arguments.get("context")
    if not isinstance(context, dict):
        return call
    return calls.Call(call.name, {**call.arguments, "context": {**context, **own}})
