"""Checks of a trainer that is built and not started: what is supervised, what KTO compares with and what it wants."""

from itertools import groupby

from toolset_nb.jsonl import DataError
from toolset_nb.models import around_answer

# Times SFT's mean training loss. Measured: 1.1 to 1.6 on rows of the run's own kind, 3.3 and 4.4 on others.
STRANGE = 2.5


def check_supervised(trainer, tokenizer, data: list[dict], show: int = 3) -> None:
    """Asserts that the loss covers what the assistant writes and nothing else, and shows `show` rows with that part marked.

    It writes its words and what the chat template puts around them, to the token that ends the turn.
    """
    table = trainer.train_dataset
    opening, closing = around_answer(tokenizer)
    if len(table) != len(data):
        raise DataError(f"the trainer kept {len(table)} of {len(data)} rows: some lost every supervised token")
    for number, (row, entry) in enumerate(zip(data, table, strict=True)):
        answers = _supervised(entry) if "labels" in entry else [entry["completion_ids"]]
        texts = [tokenizer.decode(answer) for answer in answers]
        earlier = row.get("earlier", [])
        wanted = [message["content"].strip() for message in earlier + row["completion"]]
        whole = all(text.startswith(opening) and text.endswith(closing) for text in texts)
        if not whole or [text.removeprefix(opening).removesuffix(closing).strip() for text in texts] != wanted:
            turns = [opening + words + closing for words in wanted]
            raise DataError(f"row {row['id']}: supervised is {texts!r}, the assistant's turns {turns!r}")
        if number < show:
            print(f"--- {row['id']}: {sum(map(len, answers))} supervised tokens")
            shown = [f">>>{m['content']}<<<" if m in earlier else f"{m['role']}: {m['content']}" for m in row["prompt"]]
            print("\n".join([*shown, f">>>{texts[-1].rstrip()}<<<"]))
    print(f"{len(data)} rows checked: only assistant tokens are supervised")


def _supervised(entry: dict) -> list[list[int]]:
    """The tokens of an SFT row that carry loss, one list for each stretch of them."""
    pairs = zip(entry["input_ids"], entry["labels"], strict=True)
    stretches = groupby(pairs, key=lambda pair: pair[1] != -100)
    return [[token for token, _ in stretch] for learned, stretch in stretches if learned]


def check_size(settings, parent) -> None:
    """Raises DataError where KTO is given another size than its SFT run `parent` has: the parameters beside it are meant for it."""
    size = parent.record["size"]
    if settings.model_size not in ("auto", size):
        raise DataError(
            f"model_size is {settings.model_size!r}, and {parent.folder.name} was trained with {size!r}: "
            f"give -p model_size {size}"
        )


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


def check_wanted(trainer, parent, rows: int = 8) -> None:
    """Prints how well the SFT run `parent` expects KTO's wanted answers, in nats a token over the first `rows`, and warns if badly.

    Answers written by other rules than those of the run's own rows (another id, other context fields) cost KTO more than any
    better call gains: it then moves the model by phrases. The measure is SFT's mean training loss, where the run has one.
    """
    import torch

    model, losses, tokens = trainer.model, 0.0, 0
    device, training = next(model.parameters()).device, model.training
    wanted = (row for row in trainer.train_dataset if row["label"])
    model.eval()
    for row, _ in zip(wanted, range(rows), strict=False):
        prompt, answer = row["prompt_ids"], row["completion_ids"]
        labels = torch.tensor([[-100] * len(prompt) + answer], device=device)
        with torch.no_grad(), trainer.accelerator.autocast():  # in the precision of the training
            loss = model(input_ids=torch.tensor([prompt + answer], device=device), labels=labels).loss
        losses, tokens = losses + float(loss) * len(answer), tokens + len(answer)
    model.train(training)
    nats, learned = losses / tokens, parent.record.get("results", {}).get("train_loss")
    against = f", against {learned:.2f} in the training of {parent.folder.name}" if learned else ""
    print(f"wanted answers: {nats:.2f} nats a token{against}")
    if learned and nats > STRANGE * learned:
        print(
            f"Warning: the wanted answers of these rows are strange to {parent.folder.name}: it was trained on rows of another "
            "kind or version, and KTO would teach it other ids and phrases in place of better calls. Train SFT on rows of the "
            "same version first (sft.ipynb; -p base_model RUN trains on from a run)."
        )
