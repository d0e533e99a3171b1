"""Pages in docs/ that quote the program quote it right."""

import re

from toolset_nb.paths import repo_root

SOURCES = "\n".join(path.read_text("utf-8") for path in (repo_root() / "toolset_nb").rglob("*.py"))
SOURCES += (repo_root() / "Makefile").read_text("utf-8")
FOREIGN = {"CUDA out of memory", "401", "403", "import unsloth", "ConnectError", "exceeds the available context size"}


def test_the_messages_that_head_the_troubleshooting_page_are_the_programs_own():
    page = (repo_root() / "docs" / "troubleshooting.md").read_text("utf-8")
    quoted = [part for line in re.findall(r"^### .*$", page, re.M) for part in re.findall(r"`([^`]+)`", line)]
    assert len(quoted) > 20
    joined = re.sub(r'"\s*\n\s*f?"', "", SOURCES)  # messages that are written over several lines
    assert [words for words in quoted if words not in joined and words not in FOREIGN] == []


def test_every_link_between_the_projects_pages_leads_somewhere():
    for page in [
        *repo_root().glob("*.md"),
        *(repo_root() / "docs").glob("*.md"),
        repo_root() / "datasets" / "README.md",
    ]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
