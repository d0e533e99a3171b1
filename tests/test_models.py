"""Base models: which size fits which machine, what is refused, and a tokenizer and template that the server shares."""

import random
import re
from types import SimpleNamespace

import pytest

from toolset_nb import export, models, preflight, runs
from toolset_nb.models import Hardware, ModelError, base_folder, choose, sizes
from toolset_nb.servers import serve

CPU = Hardware("cpu", "CPU", 0.0, 0.0, None, 16, 50)
T4 = Hardware("cuda", "Tesla T4", 14.6, 14.4, (7, 5), 12, 60)
RTX3090 = Hardware("cuda", "NVIDIA GeForce RTX 3090", 23.6, 23.2, (8, 6), 64, 500)
H200 = Hardware("cuda", "NVIDIA H200", 139.8, 139.2, (9, 0), 128, 64)


@pytest.mark.parametrize(
    ("machine", "size", "dtype"),
    [(CPU, "tiny", "float32"), (T4, "7b", "float16"), (RTX3090, "13b", "bfloat16"), (H200, "13b", "bfloat16")],
    ids=["CPU", "T4", "RTX 3090", "H200"],
)
def test_auto_takes_the_largest_size_that_fits_and_the_machine_sets_the_dtype(machine, size, dtype):
    chosen, reason = choose("auto", machine)
    assert (chosen, machine.dtype) == (size, dtype)
    assert size in reason and str(machine) in reason
    assert choose(size, machine)[0] == size


def test_a_size_that_was_never_trained_here_is_taken_by_its_name_alone():
    assert choose("auto", H200)[0] != "20b" == choose("20b", H200)[0]


def test_each_of_several_processes_looks_at_its_own_gpu(monkeypatch):
    import torch

    used = [0]
    fakes = {
        "is_available": lambda: True,
        "current_device": lambda: used[-1],
        "device_count": lambda: 4,
        "set_device": used.append,
        "mem_get_info": lambda: (2**30, (used[-1] + 1) * 2**30),
        "get_device_name": lambda: f"GPU {used[-1]}",
        "get_device_capability": lambda: (9, 0),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert models.hardware().name == "GPU 0"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert (models.hardware().name, models.hardware().memory) == ("GPU 3", 4)


@pytest.mark.parametrize(
    ("machine", "size", "need", "works"),
    [(CPU, "3b", "7.2", "tiny"), (CPU, "7b", "10.2", "tiny"), (T4, "13b", "15", "7b"), (T4, "20b", "22", "7b")],
)
def test_70_71_a_size_that_cannot_fit_says_what_it_needs_what_was_found_and_what_works(machine, size, need, works):
    with pytest.raises(ModelError) as caught:
        choose(size, machine)
    message = str(caught.value)
    assert f"model_size {size} needs a CUDA GPU with {need} GB" in message
    assert str(machine) in message and f"What works here: model_size {works}." in message
    assert f"{sizes()[size]['download_gb']:g} GB" in message


@pytest.mark.parametrize("size", sizes())
def test_models_yaml_says_everything_about_a_size(size):
    entry = sizes()[size]
    assert entry.keys() >= {"base_model", "parameters", "licence", "template", "context", "download_gb", "memory_gb"}
    shared = {"learning_rate", "epochs", "batch_size", "gradient_accumulation", "max_length"}
    assert entry["sft"].keys() >= shared | {"lora_rank", "lora_alpha"}
    assert entry["kto"].keys() >= shared | {"beta"}
    assert entry["kto"]["batch_size"] >= 2  # the KL term is estimated from the other rows of a batch
    assert max(entry[method]["max_length"] for method in ("sft", "kto")) <= entry["context"]
    assert base_folder("3b") == sizes()["3b"]["base_model"]


@pytest.mark.parametrize("size", list(sizes())[1:])
def test_the_memory_that_a_size_is_chosen_by_is_the_estimates(size):
    entry = sizes()[size]
    assert abs(preflight.estimate(size, entry["sft"], T4).gpu - entry["memory_gb"]) < 0.06


def test_what_is_printed_of_a_machine_names_capability_and_number_type():
    assert str(T4).startswith("Tesla T4, 15 GB (14 free), compute capability 7.5, float16; 12 GB RAM")
    assert "no CUDA GPU, float32" in str(CPU)


def test_the_free_disk_is_the_least_of_those_that_are_written_to(monkeypatch, tmp_path):
    import shutil

    asked = []
    free = {"runs": 3, "cache": 2, "hub": 1}

    def usage(folder):
        asked.append(folder)
        return SimpleNamespace(free=free[folder.name] * 2**30)

    for name in free:
        (tmp_path / name).mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub" / "not there yet"))
    monkeypatch.setenv("TOOLSET_NB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(models, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert models.free_disk() == 1 and len(asked) == 3


def test_150_the_embedded_model_is_read_from_a_cache_that_cannot_be_written(monkeypatch):
    models.embedded()
    monkeypatch.setattr(models, "embedded_tokenizer", lambda: pytest.fail("written again"))
    assert (models.embedded() / "model.safetensors").exists()


def test_sizes_are_ordered_by_the_memory_they_need():
    needs = [entry["memory_gb"] for entry in sizes().values()]
    assert needs == sorted(needs) and needs[0] == 0


def test_a_setting_that_is_not_0_goes_before_the_sizes_own_value(capsys):
    from toolset_nb.settings import SFTSettings

    values = models.defaults("tiny", "sft", SFTSettings(epochs=2, learning_rate=0))
    assert values["epochs"] == 2 and values["learning_rate"] == sizes()["tiny"]["sft"]["learning_rate"]
    assert "epochs=2 (code)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "..",
        "x",
        "a/b/c",
        "/a",
        "a/",
        "./x",
        "unsloth/Qwen3-8B\n",
        "unsloth/Qwen3-8B@main",
        "a b/c",
        "https://x/y",
    ],
)
def test_68_what_is_neither_a_folder_nor_a_hub_id_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_text("a file")
    with pytest.raises(ModelError, match="base_model"):
        base_folder("7b", name)


def test_a_folder_with_pickled_weights_only_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match="no .safetensors file"):
        base_folder("7b", str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    assert base_folder("7b", str(tmp_path)) == str(tmp_path)


def test_a_run_that_is_not_complete_is_no_base():
    runs.Run.start("sft", "tiny", "half")
    with pytest.raises(ModelError, match="half is running: only a complete run"):
        base_folder("tiny", "half")


def test_a_hub_id_goes_through():
    assert base_folder("7b", "unsloth/Qwen3-8B") == "unsloth/Qwen3-8B"


def hostile_texts(count: int, seed: int = 7) -> list[str]:
    """Texts of digits, many scripts, blanks of every kind and the model's own special tokens."""
    pick = random.Random(seed)
    pieces = [
        "0",
        "7",
        "1234567890",
        "3.14",
        "a",
        "The",
        " note",
        "don't",
        "I'LL",
        "_",
        "{",
        '":',
        "\\n",
        "ÄÖ",
        "é",
        "e\u0301",
    ]
    pieces += [
        "日本語",
        "привет",
        "مرحبا",
        "हिन्दी",
        "🌱",
        "👩‍👩‍👧",
        "\u200d",
        "\u00a0",
        "½",
        "①",
        "Ⅷ",
        "٣",
        "\ufeff",
        "ﬁ",
    ]
    pieces += [
        " ",
        "  ",
        "\t",
        "\n",
        "\n\n",
        "\r\n",
        "\u3000",
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<repo_name>",
    ]
    texts = ["".join(pick.choices(pieces, k=pick.randint(1, 14))) for _ in range(count * 3 // 4)]
    while len(texts) < count:
        codes = [pick.randrange(1, 0x2FFFF) for _ in range(pick.randint(1, 8))]
        texts.append("".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000) or "x")
    return texts


@pytest.fixture(scope="module")
def endpoint(tiny_model):
    with serve(export.base_gguf(str(tiny_model)), slots=1, context=512, threads=1) as endpoint:
        yield endpoint


def test_the_server_cuts_text_into_the_same_tokens_as_training_did(endpoint):
    tokenizer = models.embedded_tokenizer()
    different = []
    for text in hostile_texts(1000):
        body = {"content": text, "add_special": False, "parse_special": True}
        served = endpoint.client.post("/tokenize", json=body).json()["tokens"]
        if served != tokenizer(text, add_special_tokens=False)["input_ids"]:
            different.append(text)
    assert different == []


def test_every_text_comes_back_from_its_tokens():
    tokenizer = models.embedded_tokenizer()
    for text in hostile_texts(300, seed=1):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "Open 'Garden'"}
CALL = {"name": "vaultManager_openNote", "arguments": {"path": "Garden.md"}}
WRITTEN = '<tool_call>\n{"name": "vaultManager_openNote", "arguments": {"path": "Garden.md"}}\n</tool_call>'
TOOL = {"type": "function", "function": {"name": "vaultManager_openNote", "parameters": {"type": "object"}}}

RENDERED = {
    "user alone": ([ASK], None, "<|im_start|>user\nOpen 'Garden'<|im_end|>\n"),
    "system": (
        [SYSTEM, ASK],
        None,
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOpen 'Garden'<|im_end|>\n",
    ),
    "tool result": (
        [ASK, {"role": "tool", "content": '{"ok": true}'}],
        None,
        "<|im_start|>user\nOpen 'Garden'<|im_end|>\n"
        '<|im_start|>user\n<tool_response>\n{"ok": true}\n</tool_response><|im_end|>\n',
    ),
    "prose": ([{"role": "assistant", "content": "Which?"}], None, "<|im_start|>assistant\nWhich?<|im_end|>\n"),
    "tool_calls": (
        [{"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": CALL}]}],
        None,
        f"<|im_start|>assistant\n{WRITTEN}<|im_end|>\n",
    ),
    "prose and two tool_calls": (
        [{"role": "assistant", "content": "Now:", "tool_calls": [{"function": CALL}, CALL]}],
        None,
        f"<|im_start|>assistant\nNow:\n{WRITTEN}\n{WRITTEN}<|im_end|>\n",
    ),
    "arguments as text": (
        [{"role": "assistant", "content": "", "tool_calls": [{**CALL, "arguments": '{"path": "Garden.md"}'}]}],
        None,
        f"<|im_start|>assistant\n{WRITTEN}<|im_end|>\n",
    ),
}


@pytest.mark.parametrize(("messages", "tools", "text"), RENDERED.values(), ids=RENDERED)
def test_the_chat_template_renders(messages, tools, text):
    tokenizer = models.embedded_tokenizer()
    assert tokenizer.apply_chat_template(messages, tools=tools, tokenize=False) == text
    opened = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
    assert opened == text + "<|im_start|>assistant\n"


@pytest.mark.parametrize("opening", [[], [SYSTEM]], ids=["without system", "with system"])
def test_tools_stand_in_the_system_message(opening):
    text = models.embedded_tokenizer().apply_chat_template([*opening, ASK], tools=[TOOL], tokenize=False)
    system = text.partition("<|im_end|>")[0]
    assert text.count("<|im_start|>system") == 1 and ("Be brief." in system) == bool(opening)
    assert re.search(r'<tools>\n\{.*"name": "vaultManager_openNote".*\}\n</tools>', system)


@pytest.mark.parametrize("answer", ["Which one?", WRITTEN, f"Now:\n{WRITTEN}", "blanks  ", "12 é 日本"])
def test_the_tokens_of_a_prompt_open_those_of_prompt_and_completion(answer):
    tokenizer = models.embedded_tokenizer()
    prompt = [SYSTEM, ASK]
    opened = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": answer}], tokenize=False)
    assert whole == f"{opened}{answer}<|im_end|>\n"
    ids = tokenizer(opened, add_special_tokens=False)["input_ids"]
    assert tokenizer(whole, add_special_tokens=False)["input_ids"][: len(ids)] == ids
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.eos_token_id == 2
