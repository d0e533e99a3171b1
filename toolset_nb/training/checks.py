"""Checks of a trainer that is built and not started: what is supervised, what KTO compares with."""

from toolset_nb.jsonl import DataError
from toolset_nb.models import around_answer


def check_supervised(trainer, tokenizer, data: list[dict], show: int = 3) -> None:
    """Asserts that the loss covers what the assistant writes and nothing else, and shows `show` rows with that part marked.

    It writes its words and what the chat template puts around them, to the token that ends the turn.
    """
    table = trainer.train_dataset
    opening, closing = around_answer(tokenizer)
    if len(table) != len(data):
        raise DataError(f"the trainer kept {len(table)} of {len(data)} rows: some lost every supervised token")
    for number, (row, entry) in enumerate(zip(data, table, strict=True)):
        if "labels" in entry:
            answer = [token for token, label in zip(entry["input_ids"], entry["labels"], strict=True) if label != -100]
        else:
            answer = entry["completion_ids"]
        text, words = tokenizer.decode(answer), row["completion"][0]["content"].strip()
        whole = text.startswith(opening) and text.endswith(closing)
        if not whole or text.removeprefix(opening).removesuffix(closing).strip() != words:
            raise DataError(
                f"row {row['id']}: supervised is {text!r}, the assistant's turn {opening + words + closing!r}"
            )
        if number < show:
            print(f"--- {row['id']}: {len(answer)} supervised tokens")
            print(
                "".join(f"{message['role']}: {message['content']}\n" for message in row["prompt"])
                + f">>>{text.rstrip()}<<<"
            )
    print(f"{len(data)} rows checked: only assistant tokens are supervised")


def check_reference(trainer) -> None:
    """Asserts that KTO's reference is a frozen copy of the SFT adapter, equal to the policy before the first step."""
    import torch

    parameters = dict(trainer.model.named_parameters())
    pairs = [(name, name.replace(".ref.", ".default.")) for name in parameters if ".ref." in name]
    if not pairs:
        raise DataError("the trainer made no reference adapter: KTO would compare with the untuned base")
    for reference, policy in pairs:
        if parameters[reference].requires_grad or not torch.equal(parameters[reference], parameters[policy]):
            raise DataError(f"{reference} is not a frozen copy of the SFT policy")
    print(f"reference: a frozen copy of the SFT adapter ({len(pairs)} tensors)")
