"""How alike requests are: shared runs of eight words, MinHash neighbours, and the measures of diversity of a data card."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy

from toolset_nb.paths import repo_root

GRAM = 8  # words in a run that nobody says twice by chance
SHINGLE = 3  # words in a shingle of MinHash
HASHES = 64
NEAR = 0.7  # estimated Jaccard similarity from which two requests are neighbours
_COEFFICIENTS = numpy.random.default_rng(0).integers(1, 1 << 63, (2, HASHES), dtype=numpy.uint64) | numpy.uint64(1)


def words(text: str) -> list[str]:
    """Words in lower case, without marks."""
    return re.findall(r"\w+", text.casefold())


def grams(text: str) -> Iterator[str]:
    """Every run of eight words."""
    said = words(text)
    return (" ".join(said[at : at + GRAM]) for at in range(len(said) - GRAM + 1))


def minhash(text: str) -> numpy.ndarray:
    """64 numbers; the share in which two texts agree estimates the Jaccard similarity of their three-word shingles."""
    said = words(text)
    shingles = {" ".join(said[at : at + SHINGLE]) for at in range(max(1, len(said) - SHINGLE + 1))}
    hashed = [int.from_bytes(hashlib.blake2b(s.encode(), digest_size=8).digest(), "big") for s in shingles]
    values = numpy.array(hashed, dtype=numpy.uint64)[:, None]
    return ((values * _COEFFICIENTS[0] + _COEFFICIENTS[1]) >> numpy.uint64(32)).min(axis=0).astype(numpy.uint32)


class Reserved:
    """The prompts of evaluation, which no training row may come near."""

    def __init__(self, prompts: Iterable[str]) -> None:
        prompts = list(prompts)
        self.grams = {gram for prompt in prompts for gram in grams(prompt)}
        self.signatures = numpy.array([minhash(prompt) for prompt in prompts], dtype=numpy.uint32).reshape(-1, HASHES)

    @classmethod
    def published(cls) -> "Reserved":
        """All of datasets/prompts."""
        return cls(question for _, question in evaluation_prompts())

    def near(self, text: str) -> str:
        """Why a text is too close, or ""."""
        if not self.grams.isdisjoint(grams(text)):
            return "eight words in a row of an evaluation prompt"
        if len(self.signatures) and float((self.signatures == minhash(text)).mean(axis=1).max()) >= NEAR:
            return "a near copy of an evaluation prompt"
        return ""


def evaluation_prompts() -> Iterator[tuple[str, str]]:
    """(id, request) of every prompt and task of datasets/prompts."""
    for path in sorted((repo_root() / "datasets" / "prompts").glob("*.json")):
        entries = json.loads(path.read_text(encoding="utf-8"))
        for entry in entries if isinstance(entries, list) else []:
            yield entry["id"], entry["question"]


def diversity(rows: list[dict]) -> dict[str, Any]:
    """Measures of the requests and arguments of rows.

    distinct_2: different word pairs by all word pairs. neighbour: mean over rows of the MinHash similarity to the nearest other
    request. unique: share of rows whose request, slots of numbers aside, no other has; wording: of those that tell their
    hand-written wording the share whose wording no other has. entropy: for each tool the mean over its arguments of the
    normalised Shannon entropy of their values (1: all different).
    """
    from toolset_nb import calls

    asked = [row["conversations"][0]["content"] for row in rows if row.get("label") is not False]
    pairs = Counter(pair for said in map(words, asked) for pair in zip(said, said[1:], strict=False))
    wordings = Counter(
        row["meta"]["wording"] for row in rows if row.get("meta", {}).get("wording") and row["label"] is not False
    )
    forms = Counter(" ".join(word for word in words(text) if not word.isdigit()) for text in asked)
    signatures = numpy.array([minhash(text) for text in asked], dtype=numpy.uint32)
    nearest = []
    for at, signature in enumerate(signatures):
        alike = (signatures == signature).mean(axis=1)
        alike[at] = 0
        nearest.append(float(alike.max()))
    values: dict[str, dict[str, Counter]] = {}
    for row in rows:
        if row.get("label") is False:
            continue
        for call in calls.parse(row["conversations"][1]["content"]).calls:
            for key, value in call.arguments.items():
                if key != "context":
                    values.setdefault(call.name, {}).setdefault(key, Counter())[json.dumps(value)] += 1
    entropy = {tool: sum(map(_entropy, given.values())) / len(given) for tool, given in values.items()}
    return {
        "rows": len(asked),
        "distinct_2": len(pairs) / max(1, pairs.total()),
        "neighbour": sum(nearest) / max(1, len(nearest)),
        "unique": sum(count == 1 for count in forms.values()) / max(1, len(asked)),
        "wording": sum(count == 1 for count in wordings.values()) / max(1, wordings.total()),
        "entropy": dict(sorted(entropy.items())),
    }


def _entropy(counts: Counter) -> float:
    total = counts.total()
    if total < 2:
        return 1.0
    shares = [count / total for count in counts.values()]
    return -sum(share * math.log(share) for share in shares) / math.log(total)


def hash_list() -> Iterator[str]:
    """The published list: one line for each evaluation prompt, its id, the hashes of its runs of eight words, its MinHash."""
    for name, question in evaluation_prompts():
        hashed = [hashlib.sha256(gram.encode()).hexdigest()[:16] for gram in grams(question)]
        yield json.dumps({"id": name, "grams": hashed, "minhash": minhash(question).tolist()}) + "\n"
