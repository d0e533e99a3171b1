"""What other programs get beside the GGUF. Ollama's templates are rendered by Go's own text/template and held against what was
trained, Qwen3's with TRL's copies.

Not the same in Ollama, and not held here: its JSON of tools and arguments has no blanks, it joins neighbouring messages of one role
(results of tools it leaves apart), and a later system message goes to the first.
"""

import json
import sys
from pathlib import Path, PureWindowsPath

import pytest

from toolset_nb import models
from toolset_nb.downloads import DownloadError, Wheel, unpack
from toolset_nb.export import ExportError, serving
from toolset_nb.settings import ExportSettings

GO = Wheel("py-go-template", "1.0.0", 2.4, "c681d3b94118276438ea2473aa8ac174a5b74d8db42c632fad92b17e0a4244ac")


@pytest.fixture
def gguf(lora_run):
    file = lora_run.path("export", "model-q8_0.gguf")
    file.write_bytes(b"GGUF")
    return file


def test_the_modelfile_holds_weights_template_stop_sampling_and_context(lora_run, gguf):
    target = serving.write_modelfile(lora_run, gguf, ExportSettings(context=8192, temperature=0.2, system="Be brief."))
    text = target.read_text("utf-8")
    assert target == gguf.with_name("Modelfile") and text.startswith("FROM ./model-q8_0.gguf\n")
    assert f'TEMPLATE """{serving.ollama_template(tokenizer_with("ours"))}"""\n' in text
    assert text.endswith(
        'PARAMETER stop "<|im_end|>"\nPARAMETER temperature 0.2\nPARAMETER num_ctx 8192\nSYSTEM """Be brief."""\n'
    )
    assert "SYSTEM" not in serving.modelfile(lora_run, gguf, ExportSettings())
    with pytest.raises(ExportError, match="parameter system holds"):
        serving.modelfile(lora_run, gguf, ExportSettings(system='a """ b'))


def test_windows_puts_no_carriage_returns_into_the_modelfile(lora_run, gguf, monkeypatch):
    def write_text(path, text, encoding):  # as on Windows
        path.write_bytes(text.replace("\n", "\r\n").encode(encoding))

    monkeypatch.setattr(Path, "write_text", write_text)
    assert b"\r" not in serving.write_modelfile(lora_run, gguf, ExportSettings()).read_bytes()


def test_a_run_on_qwen3_gets_its_template_and_is_asked_not_to_think(lora_run, gguf):
    tokenizer = tokenizer_with("qwen3")
    tokenizer.save_pretrained(lora_run.folder / "adapter")
    text = serving.modelfile(lora_run, gguf, ExportSettings())
    assert f'TEMPLATE """{serving.ollama_template(tokenizer)}"""\nPARAMETER stop "<|im_end|>"' in text
    assert "<|im_start|>assistant\n<think>\n\n</think>\n\n{{ end }}" in text and "GENERATION_PROMPT" not in text


@pytest.mark.parametrize("name", ["gptoss", "qwen2_5", "llama3_1"])
def test_where_no_template_is_known_the_modelfile_says_so(lora_run, gguf, name):
    tokenizer_with(name).save_pretrained(lora_run.folder / "adapter")
    text = serving.modelfile(lora_run, gguf, ExportSettings())
    assert 'TEMPLATE """' not in text and serving.NO_TEMPLATE in text and 'PARAMETER stop "<|im_end|>"' in text
    assert all(line.startswith("# ") for line in serving.NO_TEMPLATE.splitlines())


def test_a_template_is_known_by_what_it_renders_not_by_its_wording():
    tokenizer = tokenizer_with("qwen3")
    known, trained = serving.ollama_template(tokenizer), tokenizer.chat_template
    tokenizer.chat_template = "{#- the same in other words -#}\n" + trained
    assert serving.ollama_template(tokenizer) == known != ""
    tokenizer.chat_template = trained.replace("<tool_response>", "<result>")
    assert serving.ollama_template(tokenizer) == ""


def tokenizer_with(name):
    """The embedded tokenizer with our chat template or TRL's copy of another model's."""
    import trl

    made = models.embedded_tokenizer()
    if name != "ours":
        made.chat_template = (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text("utf-8")
    return models.settle_template(made)


SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Open \"Garden\" & <b> 'it'\n\nnow"}
CALL = {"type": "function", "function": {"name": "vaultManager_openNote", "arguments": {"path": "Garden.md"}}}
ONE = {"role": "assistant", "content": "", "tool_calls": [CALL]}
TWO = {"role": "assistant", "content": "Both.", "tool_calls": [CALL, CALL]}
WRITTEN = {"role": "assistant", "content": '<tool_call>\n{"name": "get_tools", "arguments": {}}\n</tool_call>'}
RESULT = {"role": "tool", "content": '{"ok": true}'}
DONE = {"role": "assistant", "content": "Done."}
CHATS = {
    "a request": [USER],
    "system": [SYSTEM, USER],
    "a call and its result": [USER, ONE, RESULT],
    "words and two calls": [SYSTEM, USER, TWO, RESULT, RESULT],
    "calls in words": [SYSTEM, USER, WRITTEN, RESULT, WRITTEN, RESULT, RESULT],
    "a second request": [USER, ONE, RESULT, DONE, USER],
    "a second request after several results": [SYSTEM, USER, TWO, RESULT, RESULT, ONE, RESULT, DONE, USER],
}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("vaultManager_openNote", "get_tools")]


@pytest.fixture(scope="module")
def go():
    """Go's text/template as a function of a template file and values."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the wheel with Go's text/template is for Linux")
    try:
        folder = unpack(GO)
        sys.path.insert(0, str(folder))
        import go_template
    except (DownloadError, ImportError, OSError) as error:
        pytest.skip(f"Go's text/template cannot be had here: {error}")
    finally:
        sys.path[:] = [path for path in sys.path if "py-go-template" not in path]
    return lambda file, values: go_template.render(file, values).decode()


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["no tools", "tools"])
@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)
@pytest.mark.parametrize("name", ["ours", "qwen3", "qwen3_instruct_2507"])
def test_ollamas_template_renders_what_was_trained(go, name, chat, tools, tmp_path):
    tokenizer, file = tokenizer_with(name), tmp_path / "template"
    file.write_text(serving.ollama_template(tokenizer), "utf-8")
    values = {
        "System": SYSTEM["content"] if chat[0] is SYSTEM else "",
        "Tools": [json.dumps(tool) for tool in tools or []],  # Ollama writes a tool as its JSON
        "Messages": [_as_ollama(message) for message in chat],
        "Think": False,
        "ThinkLevel": "",
        "IsThinkSet": False,
    }
    prompt = tokenizer.apply_chat_template(chat, tools=tools, tokenize=False, add_generation_prompt=True)
    assert go(file, values) == prompt + models.around_answer(tokenizer)[0]
    assert go(file, values) == tokenizer.apply_chat_template(
        chat, tools=tools, tokenize=False, add_generation_prompt=True, **models.NO_THOUGHT
    )


def _as_ollama(message):
    made = [
        {"Function": {"Name": call["function"]["name"], "Arguments": json.dumps(call["function"]["arguments"])}}
        for call in message.get("tool_calls", [])
    ]
    return {"Role": message["role"], "Content": message["content"], "ToolCalls": made}


def test_lm_studio_gets_the_file_where_it_looks_and_only_in_a_folder_that_is_there(lora_run, gguf, tmp_path):
    with pytest.raises(ExportError, match="parameter lm_studio is .*: expected LM Studio's models folder"):
        serving.place_for_lm_studio(lora_run, gguf, str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    for _ in range(2):
        placed = serving.place_for_lm_studio(lora_run, gguf, str(tmp_path / "models"))
    assert placed == tmp_path / "models" / "toolset-nb" / "sft-tiny" / "model-q8_0.gguf"
    assert placed.read_bytes() == b"GGUF"
    assert [path.name for path in placed.parent.iterdir()] == ["model-q8_0.gguf"]


def test_the_commands_can_be_pasted(lora_run, tmp_path):
    gguf = tmp_path / "my runs" / "model-q8_0.gguf"
    typed = serving.commands(lora_run, {"q8_0": gguf}, ExportSettings(context=2048), windows=False)
    assert list(typed) == ["LM Studio", "Ollama", "llama.cpp"]
    assert typed["llama.cpp"] == f"llama-server -m '{gguf}' --jinja -c 2048 --temp 0"
    assert typed["Ollama"] == f"ollama create sft-tiny -f '{gguf.with_name('Modelfile')}' && ollama run sft-tiny"
    assert typed["LM Studio"].startswith("lms import --copy --user-repo toolset-nb/sft-tiny '")
    placed = serving.commands(lora_run, {"q8_0": gguf}, ExportSettings(lm_studio="~"), windows=False)["LM Studio"]
    assert placed == "lms load toolset-nb/sft-tiny --context-length 4096 && lms server start"
    assert serving.commands(lora_run, {"merged": tmp_path}, ExportSettings()) == {}


def test_on_windows_each_command_has_its_line_and_only_double_quotes(lora_run, monkeypatch):
    files = {name: PureWindowsPath(rf"C:\Users\Ada L\model.{name}.gguf") for name in ("q8_0", "lora")}
    monkeypatch.setattr(serving, "base_gguf", lambda base: PureWindowsPath(r"C:\base-q8_0.gguf"))
    typed = serving.commands(lora_run, files, ExportSettings(), windows=True)
    assert typed["Ollama"] == 'ollama create sft-tiny -f "C:\\Users\\Ada L\\Modelfile"\nollama run sft-tiny'
    assert typed["LM Studio"].splitlines() == [
        r'lms import --copy --user-repo toolset-nb/sft-tiny "C:\Users\Ada L\model.q8_0.gguf"',
        "lms load toolset-nb/sft-tiny --context-length 4096",
        "lms server start",
    ]
    served = r'llama-server -m C:\base-q8_0.gguf --lora "C:\Users\Ada L\model.lora.gguf" --chat'
    assert typed["llama.cpp, base and adapter"].startswith(served)


def test_a_lora_adapter_is_served_beside_its_base(lora_run, tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "base_gguf", lambda base: tmp_path / f"{Path(base).name}-q8_0.gguf")
    lora, template = tmp_path / "model.lora.gguf", lora_run.folder / "adapter" / "chat_template.jinja"
    typed = serving.commands(lora_run, {"lora": lora}, ExportSettings())
    assert list(typed.values()) == [
        f"llama-server -m {tmp_path / 'tiny-random-q8_0.gguf'} --lora {lora} --chat-template-file {template} "
        "--jinja -c 4096 --temp 0"
    ]


def test_the_file_to_serve_is_the_best_of_eight_bits_or_less(tmp_path):
    files = {name: tmp_path / name for name in ("adapter", "merged", "f16", "q4_k_m", "lora")}
    assert serving.best(files) == files["q4_k_m"]
    assert serving.best({**files, "q8_0": tmp_path / "8"}) == tmp_path / "8"
    assert serving.best({"f16": tmp_path}) == tmp_path and serving.best({"merged": tmp_path}) is None
