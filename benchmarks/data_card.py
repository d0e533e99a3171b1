"""Write the figures of datasets/README.md and its two plots anew from the data: python benchmarks/data_card.py."""

import itertools
import json
import re
from collections import Counter
from pathlib import Path

from transformers import AutoTokenizer

from toolset_nb import models
from toolset_nb.paths import repo_root
from toolset_nb.synth import balance, generate, similarity, views, wording

DATA, DOCS = repo_root() / "datasets", repo_root() / "docs"
MEASURES = {
    "distinct_2": "distinct-2: different word pairs of all word pairs",
    "neighbour": "mean MinHash similarity to the nearest other request",
    "unique": "share of rows whose request no other has, numbers aside",
    "wording": "share of rows whose hand-written wording no other has",
}
ROWS, SEED = 6600, 1  # as `make data` calls it


def read(name: str) -> list[dict]:
    """The rows of a data file."""
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def counts(sft: list[dict], kto: list[dict]) -> dict[str, int]:
    """How many entries each file of the first table has."""
    found = {"sft.jsonl": len(sft), "kto.jsonl": len(kto)}
    for path in (DATA / "prompts").glob("*.json"):
        found[f"prompts/{path.name}"] = len(json.loads(path.read_text(encoding="utf-8")))
    tools = [texts for voice in wording.voices().values() for texts in voice["requests"].values()]
    plays = [play for plays in wording.behaviours().values() for play in plays.values()]
    behaviours = [play.get("requests") or play.get("pairs") or play["replies"] for play in plays]
    return found | {
        "voices/*.yaml": sum(map(len, tools)),
        "voices/behaviours/*.yaml": sum(map(len, behaviours)),
        "voices/training/*": sum(
            len(texts.training) for texts in [*tools, *behaviours] if isinstance(texts, wording.Wordings)
        ),
    }


def figures(sft: list[dict], kto: list[dict]) -> str:
    """The tables of the section on figures."""
    found = [similarity.diversity(rows) for rows in (sft, kto)]
    lines = ["| measure (`python -m toolset_nb diversity FILE`) | `sft.jsonl` | `kto.jsonl` |", "|---|---|---|"]
    lines += [f"| {words} | {found[0][key]:.3f} | {found[1][key]:.3f} |" for key, words in MEASURES.items()]
    means = [sum(one["entropy"].values()) / len(one["entropy"]) for one in found]
    words = f"entropy of argument values, normalised, mean of {len(found[0]['entropy'])} tools (`--all` lists them)"
    lines += [f"| {words} | {means[0]:.3f} | {means[1]:.3f} |", ""]
    lines += ["| behaviour (`python -m toolset_nb coverage FILE`) | rows | | defect of the unwanted answer | pairs |"]
    behaviours = Counter(row["meta"]["behaviour"] for row in sft).most_common()
    defects = Counter(row["meta"]["defect"] for row in kto if not row["label"]).most_common()
    lines += ["|---|---|---|---|---|"]
    for left, right in itertools.zip_longest(behaviours, defects, fillvalue=("", "")):
        lines.append(f"| {left[0]} | {left[1]} | | {right[0]} | {right[1]} |")
    lines += ["", f"KTO labels guessed from style alone: {balance.guess_by_style(kto):.1%}."]
    return "\n".join(lines)


def main() -> None:
    """Rewrite the card."""
    funnel = generate.Funnel()
    made = generate.in_order(generate.sft(ROWS, SEED, funnel=funnel))
    sft, kto = read("sft"), read("kto")
    if made != sft:
        raise SystemExit("datasets/sft.jsonl is not what `make data` gives; run that first")
    card = (DATA / "README.md").read_text(encoding="utf-8")
    for name, count in counts(sft, kto).items():
        card = re.sub(rf"(\| `{re.escape(name)}` \| )[\d,]+ \|", rf"\g<1>{count:,} |", card)
    least = min(Counter(tool for row in sft for tool in row["meta"]["tools"]).values())
    silent = sum("tool_call:" not in row["conversations"][1]["content"] for row in sft) / len(sft)
    words = f"every tool at least {least} times; {silent:.1%} of the rows need no call"
    card = re.sub(r"every tool at least \d+ times; [\d.]+% of the rows need no call", words, card)
    blocks = {"funnel": "```\n" + "\n".join(str(funnel).splitlines()[:9]) + "\n```", "figures": figures(sft, kto)}
    for name, text in blocks.items():
        marks = rf"(<!-- {name} -->\n).*?(\n<!-- end -->)"
        card = re.sub(marks, lambda found, text=text: found[1] + text + found[2], card, flags=re.DOTALL)
    (DATA / "README.md").write_text(card, encoding="utf-8")
    views.heat_map(sft).savefig(DOCS / "coverage.png", dpi=80)
    tokenizer = AutoTokenizer.from_pretrained(models.base_folder("tiny"))
    views.lengths(sft, tokenizer, 512).savefig(DOCS / "lengths.png", dpi=90)
    print(f"{Path('datasets/README.md')}, docs/coverage.png and docs/lengths.png written")


if __name__ == "__main__":
    main()
