"""What several test files need: no network, runs in a temporary folder, a model small enough to train in seconds."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("notebooks", "toolset_nb", "datasets", "docs", "recipes", "schemas", "params")


def pytest_configure():
    os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub reads it
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"  # one core a worker; before torch reads it


@pytest.fixture(autouse=True)
def runs_in_a_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TOOLSET_NB_RUNS", str(tmp_path / "runs"))


@pytest.fixture(scope="session")
def make_httpserver():
    """pytest-httpserver's scripted server, answering several requests at a time as real ones do."""
    from pytest_httpserver import HTTPServer

    with HTTPServer(threaded=True) as server:
        yield server


@pytest.fixture
def repository_copy(tmp_path):
    """The project's own files, without the tests, in a folder that may be changed."""
    copy = tmp_path / "copy"
    for name in PRODUCT:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A folder with a random Llama of 3 million parameters and the embedded model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from toolset_nb import models

    tokenizer = models.embedded_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny-random"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
