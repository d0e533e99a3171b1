"""Where the project is published, and writing that address into every badge, bootstrap cell and clone command.

`pyproject.toml` holds the address once (`project.urls.Repository`); notebooks and README repeat it, since Colab opens them
alone, and so do the steps for Kaggle and Hugging Face Jobs. Colab badges take the address's owner and name, and Colab opens
repositories of github.com only.
"""

import re
import tomllib
from pathlib import Path

from toolset_nb.errors import ToolsetError
from toolset_nb.files import replacing
from toolset_nb.paths import repo_root


class RepositoryError(ToolsetError, ValueError):
    """The address is not one that can be cloned and linked to; the message says what one looks like."""


def current() -> str:
    """The Repository address of pyproject.toml."""
    text = (repo_root() / "pyproject.toml").read_text("utf-8")
    return tomllib.loads(text)["project"]["urls"]["Repository"]


def rewrite(url: str) -> list[Path]:
    """Makes `url` (https://host/owner/name) the project's address; returns the files that changed.

    Raises RepositoryError before anything is written.
    """
    new = _path(url)
    old_url = current()
    old = _path(old_url)
    old_name, new_name = (path.partition("/")[2] for path in (old, new))
    replacements = {
        f"{old_url} && cd {old_name}": f"{url} && cd {new_name}",
        old_url: url,
        f"https://colab.research.google.com/github/{old}": f"https://colab.research.google.com/github/{new}",
    }
    ends = r"(?![\w-]|\.\w)"  # owner/name-2 and owner/name.org are other repositories
    pattern = re.compile("(?:" + "|".join(map(re.escape, replacements)) + ")" + ends)
    changed = {}
    for path in _files():
        text = path.read_bytes().decode("utf-8")
        replaced = pattern.sub(lambda match: replacements[match.group()], text)
        if replaced != text:
            changed[path] = replaced
    for path, text in changed.items():
        with replacing(path) as draft:
            draft.write_bytes(text.encode("utf-8"))
    return list(changed)


def _path(url: str) -> str:
    """The owner/name part of an address."""
    match = re.fullmatch(r"https://[a-z0-9][a-z0-9.-]*(?::[0-9]+)?/([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)", url, re.A)
    if not match or url.endswith(".git"):
        shown = re.sub(r"//[^/@]*@", "//...@", url)
        raise RepositoryError(
            f"repository {shown!r}: expected https://host/owner/name with nothing before or after it (no .git, no token), "
            "for example https://github.com/you/toolset_nb"
        )
    return match[1]


def _files() -> list[Path]:
    root = repo_root()
    named = [
        root / name for name in ("pyproject.toml", "README.md", "docs/platforms.md", "recipes/huggingface_jobs.sh")
    ]
    return [*named, *sorted((root / "notebooks").glob("*.ipynb"))]
