"""Rows in: which of a file's rows are trained on, in which order, and as which tokens and columns."""

import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy

from toolset_nb import rows
from toolset_nb.jsonl import DataError
from toolset_nb.paths import find_file, repo_root
from toolset_nb.runs import rendering


def data_path(name: str) -> Path:
    """A dataset's path: as given, else relative to the repository; raises DataError."""
    if path := find_file(name):
        return path
    raise DataError(f"dataset {name!r}: no such file here or under {repo_root()}")


def load_rows(settings: Any, method: str, values: dict[str, Any]) -> list[dict]:
    """The file's rows as prompt/completion (+ label) rows in file order; raises DataError when the file has problems.

    `values` (of `models.defaults`) say how they are rendered, and may say how many: the size's own `max_rows` holds where the
    settings name no other.
    """
    path = data_path(settings.dataset)
    findings = list(rows.validate([path]))
    if findings:
        shown = "\n".join(map(str, findings[:20]))
        raise DataError(f"{path.name} has {len(findings)} problems (python -m toolset_nb validate {path}):\n{shown}")
    source = [row for _, row in rows.read(path)]
    if method == "sft":
        source = [row for row in source if row.get("label") is not False]
    parts = rows.training_rows(source, **rendering(values))
    if method == "kto":  # the two rows of a pair part at their last answer; what stands before it is in its prompt
        parts = list({part["id"].partition("#")[0]: part for part in parts}.values())
    return parts[: settings.max_rows or values.get("max_rows") or None]


def drop_long(data: list[dict], tokenizer, max_length: int, pairs: bool = False) -> list[dict]:
    """Rows that fit `max_length` tokens whole, with their tokens; prints how many and why the others do not.

    `input_ids` (int32) are those of prompt and completion by the chat template, `learned` the places (start, end) of the completion
    in them. `pairs` drops both rows of a pair.
    """
    data = _tokenized(data, tokenizer)
    lengths = [len(row["input_ids"]) for row in data]
    keep = [length <= max_length for length in lengths]
    if pairs:
        keep = [keep[i] and keep[i ^ 1] if (i ^ 1) < len(keep) else False for i in range(len(keep))]
    kept = [row for row, good in zip(data, keep, strict=True) if good]
    ordered = sorted(lengths) or [0]
    middle, high = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)]
    print(
        f"{len(kept)} of {len(data)} rows fit max_length {max_length} (median {middle} tokens, 95% {high}, longest {ordered[-1]})"
    )
    for row, length in zip(data, lengths, strict=True):
        if length > max_length:
            print(f"  left out: {row['id']}, {length} tokens; its answer would be cut off")
    if not kept:
        raise DataError(f"no row fits max_length {max_length}: raise it above {ordered[0]}")
    return kept


def join_answers(data: list[dict]) -> list[dict]:
    """Rows of `drop_long` where the answers of one conversation are learned in one pass; prints what that saves.

    A row whose tokens begin those of the conversation's next row goes into it: its place joins `learned`, its completion stands
    under `earlier`. A chat template that writes an answer otherwise once another follows (Qwen3's drops the empty thought,
    Harmony's ends the turn with another token) keeps them apart, since what is asked of the model later is the last answer alone.
    """
    joined: list[dict] = []
    for row in data:
        last = joined[-1] if joined else None
        if last and _begins(last, row):
            earlier = last.get("earlier", []) + last["completion"]
            joined[-1] = row | {"learned": last["learned"] + row["learned"], "earlier": earlier}
        else:
            joined.append(row)
    before, after = (sum(len(row["input_ids"]) for row in rows) for rows in (data, joined))
    if len(joined) < len(data):
        print(
            f"{len(data)} answers in {len(joined)} passes, one a conversation: {after:,} tokens in place of {before:,}"
        )
    return joined


def arrange(data: list[dict], batch_size: int, seed: int, unit: int = 1) -> list[dict]:
    """The rows in a random order in which those of one batch are of about one length, so that little of a batch is padding.

    Only within a batch: `group_by_length` of transformers also walks from long batches to short ones, again and again, and with
    two rows a batch the model learned less from it. For a trainer that takes rows as they come (`sequential`). Several
    processes take batches in turn, so those that are computed at the same time are of one length too. `unit` rows that follow
    one another stay together: 2 for KTO's pairs, whose longer row counts.
    """
    together = max(1, batch_size * int(os.environ.get("WORLD_SIZE", "1")) // unit)
    shuffle = random.Random(seed).shuffle
    whole = len(data) - len(data) % unit
    order = [data[start : start + unit] for start in range(0, whole, unit)]
    shuffle(order)
    near = 50 * together  # few enough that long and short rows stay mixed over the epoch
    groups = [sorted(order[start : start + near], key=_longest) for start in range(0, len(order), near)]
    batches = [group[i : i + together] for group in groups for i in range(0, len(group), together)]
    full = [batch for batch in batches if len(batch) == together]
    shuffle(full)
    rest = [batch for batch in batches if len(batch) < together]
    return [row for batch in full + rest for rows in batch for row in rows] + data[whole:]


def to_dataset(data: Iterable[dict], method: str = "sft"):
    """A Hugging Face dataset of the columns TRL reads: for SFT tokens and what is learned of them, which it takes as they are.

    For KTO they are messages: its trainer makes the tokens itself, and those of the KL pairs.
    """
    from datasets import Dataset

    if method == "kto":
        return Dataset.from_list([{key: row[key] for key in ("prompt", "completion", "label")} for row in data])
    return Dataset.from_list([{"input_ids": row["input_ids"], "completion_mask": _mask(row)} for row in data])


def _tokenized(data: list[dict], tokenizer) -> list[dict]:
    """The rows with `input_ids` and `learned`: the completion starts where the prompt, opened for an answer, ends."""
    if not data:
        return []
    asked = [tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True) for row in data]
    texts = [tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False) for row in data]
    prompts, whole = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (asked, texts))
    return [
        row
        | {
            "input_ids": numpy.array(ids, dtype=numpy.int32),
            "learned": [(len(os.path.commonprefix([prompt, ids])), len(ids))],
        }
        for row, prompt, ids in zip(data, prompts, whole, strict=True)
    ]


def _begins(row: dict, later: dict) -> bool:
    """Whether `later` goes on with the conversation of `row`, token by token."""
    ids, stem = row["input_ids"], row["id"].partition("#")[0]
    if not stem or stem != later["id"].partition("#")[0]:
        return False
    return len(ids) < len(later["input_ids"]) and numpy.array_equal(ids, later["input_ids"][: len(ids)])


def _mask(row: dict) -> numpy.ndarray:
    """1 where a token is learned."""
    mask = numpy.zeros(len(row["input_ids"]), dtype=numpy.int8)
    for start, end in row["learned"]:
        mask[start:end] = 1
    return mask


def _longest(rows: list[dict]) -> int:
    """Tokens of the longest of these rows."""
    return max(len(row["input_ids"]) for row in rows)
