"""Sharing: a run or a data set goes to the Hub, into a private repository.

Name, token and right to write are checked before hours of work. The large files are sent one after the other, and a last commit
makes all of them visible at once: an upload that broke off leaves the repository as it was, and the next call sends only what
is not there yet. The token is `huggingface_hub.get_token()`'s and stands in no message. Not here: merging and converting
(`weights`, `gguf`) and what the model card says (`card`).
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

from dotenv import load_dotenv

from toolset_nb.export.artefacts import size_words
from toolset_nb.export.card import MARK, base_id, card_files
from toolset_nb.export.formats import FORMATS
from toolset_nb.export.refusals import TOKENS, in_words
from toolset_nb.export.serving import best, modelfile
from toolset_nb.export.weights import ExportError
from toolset_nb.paths import repo_root
from toolset_nb.runs import Run
from toolset_nb.settings import ExportSettings

PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def check_hub(repo: str, kind: str = "model", private: bool = True) -> None:
    """Before hours of work: may this token write to `repo` ("model" or "dataset"), and is nothing else there?

    Makes the empty repository where there is none: only that shows that it can be made. Raises ExportError; the token is never
    shown.
    """
    api = _client(repo)
    with in_words(repo):
        _may_write(api.whoami(), repo)
        if _files_there(api, repo, kind, private) is None:
            api.create_repo(repo, repo_type=kind, private=private)
        api.auth_check(repo, repo_type=kind, write=True)


def upload(run: Run, repo: str, confirm: Callable[[str], bool] | None = None, private: bool = True) -> str:
    """Uploads what a complete run has under adapter/ and export/, its evaluation results and its card; returns the address.

    A GGUF goes with a Modelfile for Ollama: that of export/, else one of the default settings.

    What an earlier upload left there and this one does not have is deleted in the same commit. `confirm` is shown once what would
    go where and what would be deleted; when it says no, nothing is sent and "" is returned: `ask` puts it to a person. Without it
    the call itself is the consent, as `push_to_hub` is in a notebook. After a broken connection call it again.
    """
    files: dict[str, Path | bytes] = dict(shared_files(run))
    base = base_id(run.record)
    gguf = best({name: files[form.file] for name, form in FORMATS.items() if form.file in files})
    if gguf and "Modelfile" not in files:
        files["Modelfile"] = modelfile(run, gguf, ExportSettings()).encode()
    if "adapter_config.json" in files:
        files["adapter_config.json"] = _portable(files["adapter_config.json"], base)
    files |= {name: text.encode() for name, text in card_files(run, repo, files).items()}
    return _send(files, repo, "model", f"Run {run.folder.name}", confirm, private, base)


def upload_dataset(
    path: Path | str, repo: str, confirm: Callable[[str], bool] | None = None, private: bool = True
) -> str:
    """Uploads a .jsonl file, or those of a folder, with the README.md beside them and its pictures; otherwise as `upload`."""
    import yaml
    from huggingface_hub import DatasetCard

    path = Path(path)
    folder = path if path.is_dir() else path.parent
    files: dict[str, Path | bytes] = {
        file.name: file for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])
    }
    missing = [str(file) for file in files.values() if not file.is_file()]
    if not files or missing:
        raise ExportError(f"{path}: no such .jsonl file, nor a folder with one")
    if not (folder / "README.md").is_file():
        raise ExportError(f"{folder} has no README.md: a data set needs a card that says where its rows come from")
    try:
        card = DatasetCard.load(folder / "README.md")
    except (ValueError, yaml.YAMLError) as error:
        raise ExportError(
            f"{folder / 'README.md'}: its header is not YAML ({' '.join(str(error).split())[:200]})"
        ) from None
    card.data["tags"] = list(dict.fromkeys([*(card.data.get("tags") or []), MARK]))
    text = str(card)
    for link in re.findall(r"!\[[^]]*\]\((?!https?:)([^)\s]+)\)", text):  # its pictures go beside it
        if (folder / link).is_file():
            files[Path(link).name] = folder / link
            text = text.replace(f"]({link})", f"]({Path(link).name})")
    files["README.md"] = text.encode()
    return _send(files, repo, "dataset", f"{', '.join(files)}", confirm, private)


def ask(question: str) -> bool:
    """Whether the person at the keyboard says yes; no where there is none."""
    try:
        return input(f"{question}\nUpload? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def shared_files(run: Run) -> dict[str, Path]:
    """Path in the repository -> file: adapter/ and export/ at the top, without unfinished files, marks and pickles.

    Raises ExportError when the run is not complete or has neither.
    """
    if run.status != "complete":
        raise ExportError(f"{run} is {run.status}: only a complete run is shared")
    found = {}
    for folder in (run.folder / "adapter", run.folder / "export"):
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = file.relative_to(folder)
            unfinished = any(part.startswith(".") for part in name.parts) or file.suffix == ".tmp"
            if not (unfinished or file.suffix in PICKLED or name.as_posix() == "README.md"):
                found[name.as_posix()] = file
    if not found:
        raise ExportError(f"{run} has nothing to share: adapter/ and export/ are empty")
    return found


def _send(
    files: dict[str, Path | bytes],
    repo: str,
    kind: str,
    message: str,
    confirm: Callable[[str], bool] | None,
    private: bool,
    base: str = "",
) -> str:
    """The files in one commit, which for a model deletes what else is there; "" when `confirm` says no."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, constants

    api = _client(repo)
    with in_words(repo):
        there = _files_there(api, repo, kind, private) or []
    old = [name for name in there if name not in files] if kind == "model" else []
    sizes = {name: len(each) if isinstance(each, bytes) else each.stat().st_size for name, each in files.items()}
    if confirm:
        listed = "".join(f"\n  {name}, {size_words(size)}" for name, size in sizes.items())
        listed += "".join(f"\n  {name}, of an earlier upload: deleted" for name in old)
        where = f"{'private' if private else 'public'} {kind} repository {repo}"
        if not confirm(f"Upload {len(files)} files ({size_words(sum(sizes.values()))}) to the {where}?{listed}"):
            return ""
    check_hub(repo, kind, private)
    _check_base(api, base)
    with in_words(repo):
        additions = [CommitOperationAdd(name, each) for name, each in files.items()]
        for number, addition in enumerate(additions, 1):  # one by one: a broken connection costs one file
            print(
                f"  {number} of {len(additions)}: {addition.path_in_repo}, {size_words(sizes[addition.path_in_repo])}"
            )
            api.preupload_lfs_files(repo, [addition], repo_type=kind, free_memory=False)
        deletions = [CommitOperationDelete(name, is_folder=False) for name in old]
        for deletion in deletions:
            print(f"  {deletion.path_in_repo}, of an earlier upload: deleted")
        api.create_commit(repo, additions + deletions, commit_message=message, repo_type=kind)
    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def _client(repo: str):
    """The Hub's client for this token, .env's too. Raises ExportError where name, token or settings rule out any upload."""
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.utils import validate_repo_id

    if not repo:
        raise ExportError("push_to_hub needs hub_repo, for example your-name/toolset-tiny")
    if constants.is_offline_mode():
        raise ExportError(
            "HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set: unset it and start Python again to use the Hub"
        )
    load_dotenv(repo_root() / ".env")
    if not get_token():
        raise ExportError(
            "push_to_hub needs a token: `hf auth login`, HF_TOKEN in the environment, or a Colab secret HF_TOKEN"
        )
    with in_words(repo):
        validate_repo_id(repo)
    if "/" not in repo:
        raise ExportError(f"hub_repo {repo!r} has no owner: expected for example your-name/{repo}")
    return HfApi(token=get_token())


def _files_there(api, repo: str, kind: str, private: bool) -> list[str] | None:
    """The files of a repository that may be written to, .gitattributes aside; None where there is none. Raises ExportError."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        there = api.repo_info(repo, repo_type=kind)
    except RepositoryNotFoundError:
        return None
    files = [file.rfilename for file in there.siblings or [] if file.rfilename != ".gitattributes"]
    if files and MARK not in (there.tags or []):
        raise ExportError(
            f"{repo} exists and holds something else ({', '.join(files[:3])}): choose another name, or put the "
            f"tag {MARK} into its card if it may be overwritten"
        )
    if private and not there.private:
        raise ExportError(
            f"{repo} exists and is public: choose another name, make it private in its settings, or upload with "
            "private=False"
        )
    return files


def _may_write(account: dict, repo: str) -> None:
    """Raises ExportError when what the Hub says of the token rules out writing to `repo`."""
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise ExportError(f"this token may only read: make one with write access at {TOKENS}")
    owners = [account["name"], *(each["name"] for each in account.get("orgs", []))]
    owner = repo.partition("/")[0]
    # a fine-grained token may be kept from seeing organisations that it can write to: there the Hub itself decides
    if role == "write" and owner.casefold() not in map(str.casefold, owners):
        raise ExportError(f"{repo}: this token writes for {', '.join(owners)}, not for {owner}; name one of these")


def _check_base(api, base: str) -> None:
    """Raises ExportError when the base is gated and this account has not accepted its terms; a base elsewhere is let be."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if base:
        with in_words(base):
            try:
                api.auth_check(base)
            except GatedRepoError:
                raise ExportError(
                    f"the base model {base} is gated: accept its terms at https://huggingface.co/{base} with the account "
                    "of this token; they hold for what was trained from it"
                ) from None
            except RepositoryNotFoundError:
                return


def _portable(config: Path, base: str) -> bytes:
    """adapter_config.json with the base's Hub id where it has a folder of this machine."""
    values = json.loads(config.read_text("utf-8"))
    named = values.get("base_model_name_or_path") or ""
    if Path(named).is_absolute():
        values["base_model_name_or_path"] = base or Path(named).name
    return (json.dumps(values, indent=2) + "\n").encode()
