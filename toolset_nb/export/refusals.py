"""What the Hub and its client refuse, each as one sentence that says what to do.

The client's own words run over several lines and could hold the token: where they say more than ours they follow in brackets,
in one line and without it.
"""

import os
from contextlib import contextmanager

from toolset_nb.export.weights import ExportError

TOKENS = "https://huggingface.co/settings/tokens"


@contextmanager
def in_words(repo: str):
    """What the Hub refuses while `repo` is dealt with, as an ExportError of one sentence."""
    import httpx
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except ExportError:
        raise
    except (
        httpx.HTTPError,
        OfflineModeIsEnabled,
        HFValidationError,
        ConnectionError,
        RuntimeError,
        ValueError,
    ) as error:
        raise ExportError(_reason(error, repo)) from None
    except OSError as error:
        if not isinstance(error, TimeoutError) and type(error).__module__ != "hf_xet":
            raise  # a file of this machine: its own words are the better ones
        raise ExportError(_reason(error, repo)) from None


def _reason(error: BaseException, repo: str) -> str:
    import httpx
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the client wraps what stopped a file
    if isinstance(error, HFValidationError):
        return (
            f"hub_repo {repo!r} is no name that the Hub allows: expected owner/name of letters, digits, '-', '_' and '.', "
            "96 at most, without '--' or '..' and not ending in .git"
        )
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it and start Python again to use the Hub"
    words = getattr(error, "server_message", None) or (
        str(error) if isinstance(error, ValueError | ConnectionError) else ""
    )
    said = words.replace(get_token() or "\0", "...")
    said = f" ({' '.join(said.split())[:200]})" if said else ""
    if isinstance(error, httpx.TransportError | ConnectionError | TimeoutError):
        return (
            f"the connection to {constants.ENDPOINT} failed ({type(error).__name__}){said}: call it again when it is back; "
            "what has arrived is not sent again"
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        first = "HF_TOKEN in the environment comes before `hf auth login`; " if os.environ.get("HF_TOKEN") else ""
        return (
            f"the Hub does not know this token (401): it was deleted, has expired or is not whole; {first}see {TOKENS}"
        )
    if status == 403:
        return f"this token may not write to {repo} (403){said}: give it write access to that repository or owner at {TOKENS}"
    if status == 404:
        return f"{repo} is not there, or not for this token (404): see {TOKENS} for what the token may see"
    if status == 409:
        return f"{repo} exists but this token cannot see it (409): choose another name, or see {TOKENS}"
    number = f" with {status}" if status else ""
    return f"the Hub refuses {repo}{number}: {type(error).__name__}{said}; what has arrived is not sent again"
