"""docs/evaluation.md says what the code does."""

from toolset_nb.evaluation import load_prompts, prompt_sets
from toolset_nb.evaluation.verdicts import FAILURES
from toolset_nb.paths import repo_root
from toolset_nb.servers import kinds

PAGE = (repo_root() / "docs" / "evaluation.md").read_text("utf-8")


def test_every_failure_is_explained_in_its_own_words():
    assert [name for name, words in FAILURES.items() if f"| `{name}` | {words} |" not in PAGE] == []


def test_every_prompt_set_stands_there_with_its_size():
    assert [name for name in prompt_sets() if f"| `{name}` | {len(load_prompts(name))} |" not in PAGE] == []


def test_every_server_stands_there_with_its_remedies():
    for kind in kinds().values():
        assert f"| {kind.title} | `{kind.name}` | {kind.port} |" in PAGE and kind.tools in PAGE and kind.length in PAGE
