"""Where a run's loss lies: tokens and loss of each part of the calls, on training rows that the run has not seen.

python benchmarks/loss_by_field.py RUN [FIRST] [ROWS]. What nobody could know from the prompt shows as a large share of the loss.
"""

import re
import sys
from collections import Counter

from toolset_nb import models, runs, settings, training
from toolset_nb.tools import CONTEXT_FIELDS

FIELD = r'"{}": "((?:[^"\\]|\\.)*)"'


def parts(answer: str) -> list[str]:
    """For each character of an answer the part of the call that it belongs to."""
    made = ["frame"] * len(answer)
    context = re.search(r'"context": \{.*?\}', answer)
    if context:
        made[context.end() :] = ["arguments"] * (len(answer) - context.end())
    for field, name in [("name", "tool"), *((field, f"context.{field}") for field in CONTEXT_FIELDS)]:
        for found in list(re.finditer(FIELD.format(field), answer))[: 1 if field == "name" else None]:
            made[found.start(1) : found.end(1)] = [name] * (found.end(1) - found.start(1))
    return made


def main() -> None:
    import torch

    first, count = (int(text) for text in [*sys.argv[2:4], "6000", "120"][:2])
    model, tokenizer = models.for_generation(runs.find(sys.argv[1]))
    rows = training.load_rows(settings.SFTSettings(max_rows=first + count), "sft", {})[first:]
    tokens, loss = Counter(), Counter()
    for row in rows:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        answer = row["completion"][0]["content"]
        if "<tool_call>" not in answer:
            continue
        inputs = tokenizer(prompt + answer, add_special_tokens=False, return_offsets_mapping=True, return_tensors="pt")
        places = inputs.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            chances = model(**inputs).logits[0, :-1].log_softmax(-1)
        losses = -chances.gather(1, inputs["input_ids"][0, 1:, None])[:, 0]
        belongs = parts(answer)
        for (start, end), value in zip(places[1:], losses.tolist(), strict=True):
            if start >= len(prompt):
                part = belongs[end - 1 - len(prompt)]
                tokens[part], loss[part] = tokens[part] + 1, loss[part] + value
    print(f"{'part':28} {'tokens':>7} {'loss a token':>13} {'share of loss':>14}")
    for part, value in loss.most_common():
        share = value / loss.total()
        print(f"{part:28} {tokens[part] / tokens.total():7.1%} {value / tokens[part]:13.3f} {share:14.1%}")


if __name__ == "__main__":
    main()
