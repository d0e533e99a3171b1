"""What LM Studio, Ollama and llama-server need beside a GGUF, and the commands that a person types next.

The chat template stands in the GGUF itself; llama-server and LM Studio read it there. Ollama has templates in Go's language: those
of our format and of Qwen3's are ollama_*.txt. Nothing is started here.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
from pathlib import Path, PurePath

from toolset_nb.export.gguf import base_gguf
from toolset_nb.export.weights import ExportError
from toolset_nb.files import replacing
from toolset_nb.models import NO_THOUGHT, load_tokenizer
from toolset_nb.runs import Run
from toolset_nb.settings import ExportSettings, check

# Template in Go's language -> digest of what the chat template that it stands for makes of SAMPLE.
OLLAMA = {"ollama_template.txt": "ac8a0eedf8a7ac6a", "ollama_qwen3.txt": "6bafb30f6006ae6e"}
NO_TEMPLATE = """# There is no TEMPLATE for this model's chat format. Ollama from 0.30 on takes the one in the GGUF; an older
# Ollama sends the bare words, no turns: take a newer one, or write a TEMPLATE here."""
CALL = {"type": "function", "function": {"name": "open", "arguments": {"path": "A.md", "new": True}}}
TOOL = {
    "type": "function",
    "function": {"name": "open", "description": "Open a note", "parameters": {"type": "object"}},
}
SAMPLE = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Open 'A' & B"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "{}"},
    {"role": "assistant", "content": "Both.", "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": "{}"},
    {"role": "tool", "content": "{}"},
    {"role": "assistant", "content": "<tool_call>{}</tool_call>"},
    {"role": "tool", "content": "{}"},
    {"role": "assistant", "content": "Done."},
    {"role": "user", "content": "Now C"},
]
PUBLISHER = "toolset-nb"


def best(files: dict[str, Path]) -> Path | None:
    """The GGUF model to serve: the one with most bits that is no larger than 8, else f16."""
    return next((files[name] for name in ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "f16") if name in files), None)


def name(run: Run) -> str:
    """The run's name as Ollama and LM Studio take it."""
    return run.folder.name.lower()


def ollama_template(tokenizer) -> str:
    """The template in Go's language that renders chats as the tokenizer's own does; "" where none is known.

    Known by how a sample is rendered, not by its text: the same template comes in several wordings. It ends as the prompt does of a
    model that is asked not to think, with an empty thought where the template has one.
    """

    def rendered(chat, tools, **given) -> str:
        return tokenizer.apply_chat_template(chat, tools=tools, tokenize=False, **given)

    try:
        sample = [rendered(chat, tools) for chat in (SAMPLE, SAMPLE[1:]) for tools in (None, [TOOL])]
        asked = rendered(SAMPLE, None, add_generation_prompt=True, **NO_THOUGHT).removeprefix(sample[0])
    except Exception:  # a template raises whatever its author wrote
        return ""
    digest = hashlib.sha256("".join(sample).encode()).hexdigest()[:16]
    file = next((file for file, known in OLLAMA.items() if known == digest), None)
    return Path(__file__).with_name(file).read_text("utf-8").replace("GENERATION_PROMPT", asked) if file else ""


def modelfile(run: Run, gguf: Path, settings: ExportSettings) -> str:
    """An Ollama Modelfile: weights, the template in Go's language, end of turn, sampling, context, and a system text if given.

    Where no such template is known, a comment says what then happens.
    """
    template = ollama_template(load_tokenizer(str(run.folder / "adapter")))
    lines = [f"FROM ./{gguf.name}", f'TEMPLATE """{template}"""' if template else NO_TEMPLATE]
    if ends := _end_of_turn(run):
        lines.append(f'PARAMETER stop "{ends}"')
    lines += [f"PARAMETER temperature {settings.temperature:g}", f"PARAMETER num_ctx {settings.context}"]
    if settings.system:
        if '"""' in settings.system:
            raise ExportError('parameter system holds """, which ends a text in a Modelfile: leave it out')
        lines.append(f'SYSTEM """{settings.system}"""')
    return "\n".join(lines) + "\n"


def exported_with(run: Run) -> ExportSettings:
    """The context and the temperature of the run's Modelfile, else the default ones."""
    file = run.folder / "export" / "Modelfile"
    text = file.read_text("utf-8") if file.exists() else ""
    said = dict(re.findall(r"^PARAMETER (temperature|num_ctx) (\S+)$", text, re.M))
    given = {"temperature": said.get("temperature"), "context": said.get("num_ctx")}
    return check(ExportSettings, {name: value for name, value in given.items() if value})


def write_modelfile(run: Run, gguf: Path, settings: ExportSettings) -> Path:
    """The Modelfile beside the GGUF, written in one step."""
    target, text = gguf.with_name("Modelfile"), modelfile(run, gguf, settings)
    with replacing(target) as path:
        path.write_bytes(text.encode())  # as bytes: line ends of Windows would stay in the template
    return target


def place_for_lm_studio(run: Run, gguf: Path, folder: str) -> Path:
    """The GGUF where LM Studio looks: <folder>/<publisher>/<model>/<file>; a hard link where the disk is the same, else a copy."""
    models = Path(folder).expanduser()
    if not models.is_dir():
        raise ExportError(
            f"parameter lm_studio is {folder!r}: expected LM Studio's models folder, often ~/.lmstudio/models"
        )
    target = models / PUBLISHER / name(run) / gguf.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as path:
        try:
            os.link(gguf, path)
        except OSError:
            shutil.copy2(gguf, path)
    return target


def commands(
    run: Run, files: dict[str, Path], settings: ExportSettings, windows: bool = os.name == "nt"
) -> dict[str, str]:
    """Program -> what to type next to use the model with it; the GGUF of a LoRA adapter's base is made where it is not there.

    Windows gets double quotes and one command a line: cmd.exe knows no single ones, its older PowerShell no `&&`.
    """
    gguf = best(files)
    typed = served(gguf, name(run), settings, windows) if gguf else {}
    if "lora" in files:
        base = base_gguf(run.record["base_folder"])
        template = run.folder / "adapter" / "chat_template.jinja"
        quote = _quoted if windows else shlex.quote
        base, lora, template = (quote(str(path)) for path in (base, files["lora"], template))
        adapter = f"llama-server -m {base} --lora {lora} --chat-template-file {template} {_options(settings)}"
        typed["llama.cpp, base and adapter"] = adapter
    return typed


def served(gguf: PurePath, called: str, settings: ExportSettings, windows: bool) -> dict[str, str]:
    """Program -> what to type to use a whole model with it, under the name `called`."""
    quote, then = (_quoted, "\n") if windows else (shlex.quote, " && ")
    file, made, called = quote(str(gguf)), quote(str(gguf.with_name("Modelfile"))), quote(called)
    imported = [] if settings.lm_studio else [f"lms import --copy --user-repo {PUBLISHER}/{called} {file}"]
    load = f"lms load {PUBLISHER}/{called} --context-length {settings.context}"
    return {
        "LM Studio": then.join([*imported, load, "lms server start"]),
        "Ollama": then.join([f"ollama create {called} -f {made}", f"ollama run {called}"]),
        "llama.cpp": f"llama-server -m {file} {_options(settings)}",
    }


def _options(settings: ExportSettings) -> str:
    """Of llama-server, beside the files."""
    return f"--jinja -c {settings.context} --temp {settings.temperature:g}"


def _quoted(text: str) -> str:
    """As cmd.exe and PowerShell both read it, in double quotes where it has to be."""
    return text if re.fullmatch(r"[\w.:\\/-]+", text) else f'"{text}"'


def _end_of_turn(run: Run) -> str:
    config = run.folder / "adapter" / "tokenizer_config.json"
    token = json.loads(config.read_text("utf-8")).get("eos_token") if config.exists() else ""
    return token if isinstance(token, str) else (token or {}).get("content", "")
