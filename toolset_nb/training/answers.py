"""What a model answers, before, during and after its training. Scoring it properly is `evaluation`'s work."""

from typing import Any

from toolset_nb.models import NO_THOUGHT, around_answer

HELD_OUT = 20  # prompts asked during training


def held_out(model, tokenizer, rendering: dict[str, Any]) -> float:
    """The share of `HELD_OUT` evaluation prompts that the model answers with a call that can be read and fits its tool.

    They are asked as the rows of training are rendered (`Run.rendering`).
    """
    from toolset_nb import calls
    from toolset_nb.evaluation import load_prompts
    from toolset_nb.tools import catalogue

    prompts = [prompt for prompt in load_prompts("baseline") if prompt["expected_tools"]][:HELD_OUT]
    replies = [calls.parse(text) for text in _replies(model, tokenizer, prompts, rendering, max_tokens=256)]
    good = [
        reply.kind in ("call", "text_call")
        and not reply.rescued
        and not any(catalogue().check(call.name, call.arguments) for call in reply.calls)
        for reply in replies
    ]
    return sum(good) / len(good)


def answer(model, tokenizer, prompts: dict[str, str], values: dict[str, Any], max_tokens: int = 200) -> list[str]:
    """Greedy replies to requests (request -> the tool that it needs, "" for none), asked as `values` say rows are rendered."""
    asked = [
        {"id": request, "question": request, "expected_tools": [tool] if tool else []}
        for request, tool in prompts.items()
    ]
    return _replies(model, tokenizer, asked, values, max_tokens)


def show_answers(prompts: dict[str, str], before: list[str], after: list[str] | None = None) -> None:
    """Prints the replies one under the other, long ones cut."""
    for number, prompt in enumerate(prompts):
        print(f"\nyou:    {prompt}\nbefore: {_cut(before[number])}")
        if after:
            print(f"after:  {_cut(after[number])}")


def _replies(model, tokenizer, prompts: list[dict], values: dict[str, Any], max_tokens: int) -> list[str]:
    """Greedy replies in one batch, without what the chat template puts before an answer. Models that can think are asked not to."""
    import torch

    from toolset_nb.evaluation.prompts import messages
    from toolset_nb.runs import rendering
    from toolset_nb.settings import EvaluateSettings

    asking = EvaluateSettings(**rendering(values))
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    inputs = tokenizer.apply_chat_template(
        [messages(prompt, asking) for prompt in prompts],
        add_generation_prompt=True,
        **NO_THOUGHT,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        padding=True,
    ).to(model.device)
    tokenizer.padding_side = side
    training = model.training
    model.eval()
    with torch.no_grad():
        output = model.generate(
            **inputs, max_new_tokens=max_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
    model.train(training)
    opening = tokenizer(around_answer(tokenizer)[0], add_special_tokens=False)["input_ids"]
    made = output[:, inputs["input_ids"].shape[1] :].tolist()
    words = [row[len(opening) :] if row[: len(opening)] == opening else row for row in made]
    return tokenizer.batch_decode(words, skip_special_tokens=True)


def _cut(text: str, length: int = 900) -> str:
    text = text.strip()
    return text if len(text) <= length else text[:length] + " ..."
