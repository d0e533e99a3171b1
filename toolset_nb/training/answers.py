"""What a model answers, before, during and after its training. Scoring it properly is `evaluation`'s work."""

HELD_OUT = 20  # prompts asked during training


def held_out(model, tokenizer) -> float:
    """The share of `HELD_OUT` evaluation prompts that the model answers with a call that can be read and fits its tool."""
    from toolset_nb import calls
    from toolset_nb.evaluation import load_prompts
    from toolset_nb.tools import catalogue

    prompts = [prompt["question"] for prompt in load_prompts("baseline") if prompt["expected_tools"]][:HELD_OUT]
    replies = [calls.parse(text) for text in answer(model, tokenizer, prompts, max_tokens=256)]
    good = [
        reply.kind in ("call", "text_call")
        and not reply.rescued
        and not any(catalogue().check(call.name, call.arguments) for call in reply.calls)
        for reply in replies
    ]
    return sum(good) / len(good)


def answer(model, tokenizer, prompts: list[str], max_tokens: int = 200, system: str = "") -> list[str]:
    """Greedy replies to single-turn prompts, in one batch."""
    import torch

    opening = [{"role": "system", "content": system}] if system else []
    chats = [[*opening, {"role": "user", "content": prompt}] for prompt in prompts]
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    inputs = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", padding=True
    ).to(model.device)
    tokenizer.padding_side = side
    training = model.training
    model.eval()
    with torch.no_grad():
        output = model.generate(
            **inputs, max_new_tokens=max_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
    model.train(training)
    return tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def show_answers(prompts: list[str], before: list[str], after: list[str] | None = None) -> None:
    """Prints the replies one under the other, long ones cut."""
    for number, prompt in enumerate(prompts):
        print(f"\nyou:    {prompt}\nbefore: {_cut(before[number])}")
        if after:
            print(f"after:  {_cut(after[number])}")


def _cut(text: str, length: int = 900) -> str:
    text = text.strip()
    return text if len(text) <= length else text[:length] + " ..."
