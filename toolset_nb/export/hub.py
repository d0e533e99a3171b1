"""The Hub: checked before hours of work, uploaded to when asked; the token comes from the environment and is never shown."""

from toolset_nb.export.weights import ExportError
from toolset_nb.runs import Run


def check_hub(repo: str) -> None:
    """Before hours of work: is there a token, and may it write? Raises ExportError; the token is never shown."""
    import httpx
    from huggingface_hub import HfApi, get_token

    if not repo:
        raise ExportError("push_to_hub needs hub_repo, for example your-name/toolset-tiny")
    if not get_token():
        raise ExportError(
            "push_to_hub needs a token: `hf auth login`, HF_TOKEN in the environment, or a Colab secret HF_TOKEN"
        )
    try:
        HfApi().create_repo(repo, private=True, exist_ok=True)
    except (httpx.HTTPError, OSError, ValueError) as error:  # refused, no connection, not a name the Hub allows
        raise ExportError(f"the Hub refuses {repo}: {type(error).__name__}") from None


def upload(run: Run, repo: str) -> str:
    """Uploads the adapter to a private repository and returns its address."""
    from huggingface_hub import HfApi

    HfApi().upload_folder(
        folder_path=run.folder / "adapter", repo_id=repo, commit_message=f"Adapter of {run.folder.name}"
    )
    return f"https://huggingface.co/{repo}"
