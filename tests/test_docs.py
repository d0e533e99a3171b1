"""Pages in docs/ that quote the program quote it right."""

import json
import re

import pytest

from toolset_nb.paths import repo_root

SOURCES = "\n".join(path.read_text("utf-8") for path in (repo_root() / "toolset_nb").rglob("*.py"))
SOURCES += (repo_root() / "Makefile").read_text("utf-8")
FOREIGN = {"CUDA out of memory", "401", "403", "import unsloth", "ConnectError", "exceeds the available context size"}
FOREIGN |= {
    "got an unexpected keyword argument",
    "No module named 'toolset_nb'",
    "pip's dependency resolver",
}  # Python's, pip's
EXPECTED = {  # what goes wrong most, and words of a heading that has to be there for it
    "out of memory": "CUDA out of memory",
    "no log": "No lines for minutes",
    "words where a call was due": "Plain text in place of tool calls",
    "rows that fail validation": "problems (python -m toolset_nb validate",
    "versions that drifted": "got an unexpected keyword argument",
    "another Python than that of the setup": "No module named 'toolset_nb'",
    "a killed process": "The kernel died",
    "no server": "nothing answers",
}


def test_the_messages_that_head_the_troubleshooting_page_are_the_programs_own():
    page = (repo_root() / "docs" / "troubleshooting.md").read_text("utf-8")
    quoted = [part for line in re.findall(r"^### .*$", page, re.M) for part in re.findall(r"`([^`]+)`", line)]
    assert len(quoted) > 20
    joined = re.sub(r'"\s*\n\s*f?"', "", SOURCES)  # messages that are written over several lines
    assert [words for words in quoted if words not in joined and words not in FOREIGN] == []


@pytest.mark.parametrize("words", EXPECTED.values(), ids=EXPECTED)
def test_the_common_troubles_have_a_heading_with_a_remedy(words):
    page = (repo_root() / "docs" / "troubleshooting.md").read_text("utf-8")
    sections = [part for part in page.split("\n### ")[1:] if words in part.partition("\n")[0]]
    assert len(sections) == 1 and len(sections[0].partition("\n")[2].strip()) > 60


def test_every_link_between_the_projects_pages_leads_somewhere():
    for page in [
        *repo_root().glob("*.md"),
        *(repo_root() / "docs").rglob("*.md"),
        repo_root() / "datasets" / "README.md",
    ]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_link_of_a_notebook_leads_somewhere():
    links = []
    for path in (repo_root() / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                found = re.findall(r"\]\((?!https?:|#)([^)#]+)", "".join(cell["source"]))
                links += [(path.name, target) for target in found]
    assert len(links) > 5
    assert [link for link in links if not (repo_root() / "notebooks" / link[1]).exists()] == []


def test_the_readme_lists_every_folder_and_every_module_of_the_library():
    listing = (repo_root() / "README.md").read_text("utf-8").split("## What lies where")[1].split("```")[1]
    listed = set(re.findall(r"^ *([\w/.]+) ", listing, re.M))
    package = repo_root() / "toolset_nb"
    modules = {path.name for path in package.glob("*.py") if not path.name.startswith("_")}
    packages = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert modules | packages <= listed
    assert all((repo_root() / name).exists() or (package / name).exists() for name in listed)
