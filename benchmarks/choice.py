"""Which tool a run names when a call has begun: a measure for comparing short runs, in two minutes a run on two cores.

    python benchmarks/choice.py RUN [RUN ...]

The 47 prompts and the tasks of one explicit step, asked of runs that write Hermes calls and saw no tools in the prompt. The
answer's opening is given, so that nothing but the name is measured, and more prompts count than the 47 whose intervals are 25
points wide.
"""

import sys

import torch

from toolset_nb import models, runs
from toolset_nb.evaluation.prompts import load_prompts
from toolset_nb.evaluation.statistics import wilson

BEGUN = '<tool_call>\n{"name": "'
AT_ONCE = 32


def names(run: runs.Run, prompts: list[dict]) -> list[str]:
    """The name that the run's model gives for each prompt, greedily."""
    model, tokenizer = models.for_generation(run)
    tokenizer.padding_side = "left"
    asked = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt["question"]}], tokenize=False, add_generation_prompt=True
        )
        + BEGUN
        for prompt in prompts
    ]
    order = sorted(range(len(asked)), key=lambda number: len(asked[number]))
    said = {}
    for start in range(0, len(order), AT_ONCE):
        part = order[start : start + AT_ONCE]
        batch = tokenizer([asked[n] for n in part], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            answers = model.generate(**batch, max_new_tokens=16, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        texts = tokenizer.batch_decode(answers[:, batch["input_ids"].shape[1] :])
        said |= {number: text.partition('"')[0] for number, text in zip(part, texts, strict=True)}
    return [said[number] for number in range(len(asked))]


def main() -> None:
    explicit = [p for p in load_prompts("tasks") if p["level"] == "explicit" and len(p["expected_tools"]) == 1]
    sets = {"47 prompts": load_prompts("full_coverage"), "one explicit step": explicit}
    for name in sys.argv[1:]:
        run = runs.find(name)
        for title, prompts in sets.items():
            good = sum(said == p["expected_tools"][0] for said, p in zip(names(run, prompts), prompts, strict=True))
            low, high = wilson(good, len(prompts))
            print(f"{name}: {title}: {good}/{len(prompts)} = {good / len(prompts):.0%} ({low:.0%} to {high:.0%})")


if __name__ == "__main__":
    main()
