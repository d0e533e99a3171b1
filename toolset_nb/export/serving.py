"""What LM Studio, Ollama and llama-server need beside a GGUF, and the commands that a person types next.

The chat template stands in the GGUF itself; llama-server and LM Studio read it there. Ollama has templates in Go's language: the
one for our format is ollama_template.txt. Nothing is started here.
"""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

from toolset_nb.export import artefacts
from toolset_nb.export.gguf import base_gguf
from toolset_nb.export.weights import ExportError
from toolset_nb.models import TEMPLATE
from toolset_nb.runs import Run
from toolset_nb.settings import ExportSettings

OLLAMA_TEMPLATE = Path(__file__).with_name("ollama_template.txt")
PUBLISHER = "toolset-nb"


def best(files: dict[str, Path]) -> Path | None:
    """The GGUF model to serve: the one with most bits that is no larger than 8, else f16."""
    return next((files[name] for name in ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "f16") if name in files), None)


def name(run: Run) -> str:
    """The run's name as Ollama and LM Studio take it."""
    return run.folder.name.lower()


def modelfile(run: Run, gguf: Path, settings: ExportSettings) -> str:
    """An Ollama Modelfile: weights, our template in Go's language, end of turn, sampling, context, and a system text if given.

    A base with a template of its own keeps it: Ollama then recognises it from the GGUF or takes its default.
    """
    lines = [f"FROM ./{gguf.name}"]
    trained = run.folder / "adapter" / "chat_template.jinja"
    if trained.exists() and trained.read_text("utf-8") == TEMPLATE.read_text("utf-8"):
        lines += [f'TEMPLATE """{OLLAMA_TEMPLATE.read_text("utf-8")}"""', 'PARAMETER stop "<|im_end|>"']
    elif ends := _end_of_turn(run):
        lines += [f'PARAMETER stop "{ends}"']
    lines += [f"PARAMETER temperature {settings.temperature:g}", f"PARAMETER num_ctx {settings.context}"]
    if settings.system:
        if '"""' in settings.system:
            raise ExportError('parameter system holds """, which ends a text in a Modelfile: leave it out')
        lines.append(f'SYSTEM """{settings.system}"""')
    return "\n".join(lines) + "\n"


def write_modelfile(run: Run, gguf: Path, settings: ExportSettings) -> Path:
    """The Modelfile beside the GGUF, written in one step."""
    target, text = gguf.with_name("Modelfile"), modelfile(run, gguf, settings)
    with artefacts.draft(target) as path:
        path.write_bytes(text.encode())  # as bytes: line ends of Windows would stay in the template
        os.replace(path, target)
    return target


def place_for_lm_studio(run: Run, gguf: Path, folder: str) -> Path:
    """The GGUF where LM Studio looks: <folder>/<publisher>/<model>/<file>; a hard link where the disk is the same, else a copy."""
    models = Path(folder).expanduser()
    if not models.is_dir():
        raise ExportError(
            f"parameter lm_studio is {folder!r}: expected LM Studio's models folder, often ~/.lmstudio/models"
        )
    target = models / PUBLISHER / name(run) / gguf.name
    with artefacts.draft(target) as path:
        try:
            os.link(gguf, path)
        except OSError:
            shutil.copy2(gguf, path)
        os.replace(path, target)
    return target


def commands(
    run: Run, files: dict[str, Path], settings: ExportSettings, windows: bool = os.name == "nt"
) -> dict[str, str]:
    """Program -> what to type next to use the model with it; the GGUF of a LoRA adapter's base is made where it is not there.

    Windows gets double quotes and one command a line: cmd.exe knows no single ones, its older PowerShell no `&&`.
    """
    quote, then = (_quoted, "\n") if windows else (shlex.quote, " && ")
    gguf, called, typed = best(files), quote(name(run)), {}
    options = f"--jinja -c {settings.context} --temp {settings.temperature:g}"
    if gguf:
        file, made = quote(str(gguf)), quote(str(gguf.with_name("Modelfile")))
        imported = [] if settings.lm_studio else [f"lms import --copy --user-repo {PUBLISHER}/{called} {file}"]
        load = f"lms load {PUBLISHER}/{called} --context-length {settings.context}"
        typed = {
            "LM Studio": then.join([*imported, load, "lms server start"]),
            "Ollama": then.join([f"ollama create {called} -f {made}", f"ollama run {called}"]),
            "llama.cpp": f"llama-server -m {file} {options}",
        }
    if "lora" in files:
        base = base_gguf(run.record["base_folder"])
        template = run.folder / "adapter" / "chat_template.jinja"
        base, lora, template = (quote(str(path)) for path in (base, files["lora"], template))
        adapter = f"llama-server -m {base} --lora {lora} --chat-template-file {template} {options}"
        typed["llama.cpp, base and adapter"] = adapter
    return typed


def _quoted(text: str) -> str:
    """As cmd.exe and PowerShell both read it, in double quotes where it has to be."""
    return text if re.fullmatch(r"[\w.:\\/-]+", text) else f'"{text}"'


def _end_of_turn(run: Run) -> str:
    config = run.folder / "adapter" / "tokenizer_config.json"
    token = json.loads(config.read_text("utf-8")).get("eos_token") if config.exists() else ""
    return token if isinstance(token, str) else (token or {}).get("content", "")
