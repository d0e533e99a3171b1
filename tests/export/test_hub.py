"""The Hub says no in many ways: each a clear sentence, and never a token in it. HfApi is a stand-in here."""

import httpx
import huggingface_hub
import pytest
from huggingface_hub.errors import HFValidationError

from toolset_nb.export import ExportError, check_hub, upload

TOKEN = "hf_" + "aB3" * 12


class Hub:
    """A stand-in for huggingface_hub.HfApi: records what it is asked, or raises `refusal`."""

    refusal: Exception | None = None
    asked: list = []

    def create_repo(self, repo, **options):
        self.asked.append((repo, options))
        if self.refusal:
            raise self.refusal

    def upload_folder(self, **options):
        self.asked.append(options)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    monkeypatch.setattr(Hub, "asked", [])
    return Hub


def test_uploading_needs_a_repository_and_a_token(hub, monkeypatch):
    with pytest.raises(ExportError, match="needs hub_repo, for example your-name"):
        check_hub("")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ExportError, match="needs a token: `hf auth login`, HF_TOKEN"):
        check_hub("ada/tiny")
    assert hub.asked == []


REFUSALS = {
    "403": httpx.HTTPStatusError(
        f"403 for {TOKEN}", request=httpx.Request("POST", "https://x"), response=httpx.Response(403)
    ),
    "149 no network": httpx.ConnectError(f"no route {TOKEN}"),
    "offline mode": ConnectionError(TOKEN),
    "a name the Hub does not allow": HFValidationError(f"a--b {TOKEN}"),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_what_the_hub_refuses_is_said_without_the_token(hub, monkeypatch, refusal):
    monkeypatch.setattr(hub, "refusal", refusal)
    with pytest.raises(ExportError, match="the Hub refuses ada/tiny") as caught:
        check_hub("ada/tiny")
    assert TOKEN not in str(caught.value) and caught.value.__suppress_context__


def test_the_adapter_goes_to_a_private_repository(hub, run, capsys):
    check_hub("ada/tiny")
    assert upload(run, "ada/tiny") == "https://huggingface.co/ada/tiny"
    created, uploaded = hub.asked
    assert created == ("ada/tiny", {"private": True, "exist_ok": True})
    assert (uploaded["folder_path"], uploaded["repo_id"]) == (run.folder / "adapter", "ada/tiny")
    assert TOKEN not in capsys.readouterr().out
