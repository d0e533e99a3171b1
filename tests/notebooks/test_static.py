"""What holds for every notebook without running it."""

import ast
import importlib
import inspect
import json
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

from toolset_nb import models, repository, settings

ROOT = Path(__file__).resolve().parents[2]
TRAINING = {"sft_beginner", "sft", "kto"}
HEADINGS = {
    "pipeline": ["## 3 Plan", "## 4 Run", "## 5 Look at it"],
    "export": ["## 3 Check the room", "## 4 Export", "## 5 Compare the formats", "## 6 Use it", "## 7 Save"],
    "evaluate": ["## 3 Check the data", "## 4 Load", "## 5 Evaluate", "## 6 Look at the answers", "## 7 Save"],
    "dataset": [
        "## 3 Preview",
        "## 4 Make",
        "## 5 Look at what it holds",
        "## 6 Read, label, validate",
        "## 7 A teacher",
    ],
} | dict.fromkeys(
    TRAINING, ["## 3 Check the data", "## 4 Load", "## 5 Train", "## 6 Try it (before and after)", "## 7 Save"]
)
SUBSET = {"sft_beginner"}  # shows some of its model's parameters; the others show all
TRL = ("SFTConfig", "SFTTrainer", "KTOConfig", "KTOTrainer")
SECRET = re.compile(
    r"(hf_|ghp_|github_pat_|sk-|AKIA|xox[bp]-)[A-Za-z0-9_-]{12,}|Bearer [\w.-]{12,}|://[^/\s:]+:[^/\s@]+@"
)
OPENERS = {"open", "Path", "read_text", "read_csv", "read_json", "load_dataset", "imread"}


@pytest.fixture(params=settings.NOTEBOOKS)
def name(request):
    return request.param


def path_of(name):
    return ROOT / "notebooks" / f"{name}.ipynb"


def notebook(name):
    return nbformat.read(path_of(name), as_version=nbformat.NO_CONVERT)


def code_cells(name):
    return [cell for cell in notebook(name).cells if cell.cell_type == "code"]


def trees(name):
    return [ast.parse(cell.source) for cell in code_cells(name) if not cell.source.startswith("%%")]


def nodes(name, kind):
    return [node for tree in trees(name) for node in ast.walk(tree) if isinstance(node, kind)]


def form(name):
    """The settings cell."""
    return next(cell for cell in code_cells(name) if "parameters" in cell.metadata.get("tags", []))


def lines_of_code(cell):
    return [line for line in cell.source.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def imported(name):
    """Name in the notebook -> the module or object of toolset_nb that it stands for."""
    found = {}
    for node in nodes(name, ast.ImportFrom):
        if node.module and node.module.partition(".")[0] == "toolset_nb":
            for alias in node.names:
                module = importlib.import_module(node.module)
                try:
                    named = importlib.import_module(f"{node.module}.{alias.name}")
                except ModuleNotFoundError:
                    named = getattr(module, alias.name)
                found[alias.asname or alias.name] = named
    return found


def test_it_is_a_valid_notebook_for_the_python3_kernel(name):
    found = notebook(name)
    nbformat.validate(found)
    assert found.nbformat == 4
    assert found.metadata.kernelspec.name == "python3"
    assert found.metadata.language_info.name == "python"  # without it ruff reads nothing and papermill -p dies
    assert "widgets" not in found.metadata  # GitHub does not render a notebook with them


def test_nothing_of_a_run_is_saved(name):
    for cell in code_cells(name):
        assert cell.outputs == [] and cell.execution_count is None


def test_the_headings_are_the_same_in_all_notebooks(name):
    prose = "\n".join(cell.source for cell in notebook(name).cells if cell.cell_type == "markdown")
    prose = re.sub(r"^```.*?^```", "", prose, flags=re.S | re.M)
    headings = re.findall(r"^#+ .*", prose, re.M)
    assert headings[0].startswith("# ")
    assert headings[1:] == ["## 1 Setup", "## 2 Settings", *HEADINGS[name], "## Next steps"]


def test_the_badge_opens_this_notebook_at_the_released_version(name):
    url, version = repository.current(), tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    owner_name = url.partition("://")[2].partition("/")[2]
    links = re.findall(r"https://colab\.research\.google\.com/github/[^\s)]+", notebook(name).cells[0].source)
    assert links == [f"https://colab.research.google.com/github/{owner_name}/blob/v{version}/notebooks/{name}.ipynb"]


def test_the_setup_cell_is_the_same_everywhere_and_fetches_the_released_version(name):
    url, version = repository.current(), tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    setup = code_cells(name)[0].source
    assert {code_cells(other)[0].source for other in settings.NOTEBOOKS} == {setup}
    assert re.findall(r'"(https://[^"]+)"', setup) == [url]
    assert re.findall(r'"--branch", "([^"]+)"', setup) == [f"v{version}"]


def test_the_settings_cell_follows_the_setup_cell_and_is_the_only_one(name):
    tagged = [number for number, cell in enumerate(code_cells(name)) if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == [1]
    cell = form(name)
    assert cell.metadata["cellView"] == "form"
    assert all("injected-parameters" not in other.metadata.get("tags", []) for other in code_cells(name))
    assert not [other for other in code_cells(name) if "@param" in other.source and other is not cell and other != cell]


def test_settings_are_annotated_literals_that_colab_and_papermill_can_read(name):
    for node in ast.parse(form(name).source).body:
        assert isinstance(node, ast.AnnAssign), f"line {node.lineno}: not an annotated assignment"
        assert type(ast.literal_eval(node.value)).__name__ in (node.annotation.id, "int"), node.target.id
    lines = form(name).source.splitlines()
    for line in lines:
        value, comment = re.fullmatch(r"\w+: \w+ = (.*\S)  # ?@param (.+)", line).groups()
        assert "#" not in value and "=" not in value and "#" not in comment and "=" not in comment, line


def test_papermill_reads_every_parameter_with_its_type_and_default(name):
    read = papermill.inspect_notebook(str(path_of(name)))
    wanted = {node.target.id: node for node in ast.parse(form(name).source).body}
    assert read.keys() == wanted.keys()
    for key, node in wanted.items():
        assert read[key]["inferred_type_name"] == node.annotation.id
        assert ast.literal_eval(read[key]["default"]) == ast.literal_eval(node.value)


def test_parameters_types_and_defaults_are_those_of_the_settings_model(name):
    fields = settings.NOTEBOOKS[name].model_fields
    shown = {node.target.id: node for node in ast.parse(form(name).source).body}
    assert not shown.keys() - fields.keys()
    assert name in SUBSET or shown.keys() == fields.keys()
    types = settings.NOTEBOOKS[name].model_json_schema()["properties"]
    for key, node in shown.items():
        assert ast.literal_eval(node.value) == fields[key].default, key
        words = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
        assert words[types[key]["type"]] == node.annotation.id, key


def test_the_choices_of_the_form_are_those_of_the_settings_model(name):
    choices = settings.choices(settings.NOTEBOOKS[name])
    kinds = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
    for line in form(name).source.splitlines()[1:]:
        key, annotation, comment = re.fullmatch(r"(\w+): (\w+) = .*  # ?@param (.+)", line).groups()
        if key in choices:
            assert json.loads(comment) == choices[key], key
        else:
            assert comment == f'{{type:"{kinds[annotation]}"}}', key


def test_no_parameter_takes_a_secret_and_nothing_looks_like_one(name):
    names = [node.target.id for node in ast.parse(form(name).source).body]
    assert not [key for key in names if re.search(r"(^|_)(token|key|secret|password)(_|$)", key)]
    assert not SECRET.search(path_of(name).read_text("utf-8"))


def test_no_shell_lines_and_cell_magics_on_the_first_line_only(name):
    for cell in code_cells(name):
        for number, line in enumerate(cell.source.splitlines()):
            assert not line.lstrip().startswith("!"), line
            assert not re.match(r"\s*%(pip|conda)\b", line), line
            assert number == 0 or not line.startswith("%%"), line


def test_no_file_is_opened_by_a_relative_path(name):
    for tree in trees(name)[1:]:  # the setup cell names files of the clone it has just made
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                value = node.args[0].value
                opened = called in OPENERS and isinstance(value, str)
                assert not opened or Path(value).is_absolute() or "://" in value, ast.unparse(node)


def test_cells_are_short(name):
    lengths = [len(lines_of_code(cell)) for cell in code_cells(name)]
    assert max(lengths) <= 25
    assert statistics.median(lengths) <= 7
    for node in nodes(name, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        assert node.end_lineno - node.lineno < 10, node.name


def test_every_name_of_the_package_exists(name):
    found = imported(name)
    assert found
    for node in nodes(name, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id in found:
            assert hasattr(found[node.value.id], node.attr), ast.unparse(node)
        elif isinstance(node.value, ast.Name) and node.value.id == "config":
            assert node.attr in settings.NOTEBOOKS[name].model_fields, ast.unparse(node)


def test_the_package_is_called_as_its_signatures_say(name):
    found, calls = imported(name), 0
    for node in nodes(name, ast.Call):
        parts = ast.unparse(node.func).split(".")
        if parts[0] in found and not any(isinstance(arg, ast.Starred) for arg in node.args):
            function = found[parts[0]]
            for part in parts[1:]:
                function = getattr(function, part)
            keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
            spread = any(keyword.arg is None for keyword in node.keywords)
            bind = inspect.signature(function).bind_partial if spread else inspect.signature(function).bind
            bind(*node.args, **keywords)
            calls += 1
    assert calls


def test_trl_takes_every_argument(name):
    used = [call for call in nodes(name, ast.Call) if isinstance(call.func, ast.Name) and call.func.id in TRL]
    assert len(used) == (2 if name in TRAINING else 0)
    if used:
        trl = importlib.import_module("trl")
    for call in used:
        parameters = inspect.signature(getattr(trl, call.func.id)).parameters
        given = [keyword.arg for keyword in call.keywords]
        assert None not in given and not call.args
        assert not set(given) - parameters.keys(), call.func.id


@pytest.mark.parametrize("name", sorted(TRAINING))
def test_machine_memory_and_rows_are_checked_before_a_model_is_fetched(name):
    code = "\n".join(cell.source for cell in code_cells(name))
    steps = ("models.hardware(", "models.choose(", "preflight.check(", "load_tokenizer(", "drop_long(", "= models.load")
    places = [code.rindex(step) for step in steps]
    assert places == sorted(places)


def test_every_notebook_has_its_settings():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == settings.NOTEBOOKS.keys()


def test_nbstripout_finds_nothing_to_strip():
    command = [sys.executable, "-m", "nbstripout", "--verify", *(path_of(name) for name in settings.NOTEBOOKS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_data_folders_hold_no_python():
    # `datasets/__init__.py` would hide Hugging Face's package of that name
    folders = ("datasets", "schemas", "params", "notebooks")
    assert [path for folder in folders for path in (ROOT / folder).rglob("*.py")] == []


def test_every_key_of_a_parameter_file_is_a_parameter():
    files = [path for path in (ROOT / "params").glob("*.yaml") if path.stem not in ("models", "servers")]
    assert files
    for path in files:
        values = yaml.safe_load(path.read_text("utf-8"))
        assert [model for model in settings.NOTEBOOKS.values() if values.keys() <= model.model_fields.keys()], path.name


def test_every_training_value_of_a_model_size_is_a_parameter():
    for entry in models.sizes().values():
        assert not entry["sft"].keys() - settings.SFTSettings.model_fields.keys() - {"layers"}
        assert not entry["kto"].keys() - settings.KTOSettings.model_fields.keys()


def test_every_test_file_is_collected():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    collected = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    written = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")}
    beside = (
        "conftest.py",
        "papermilled.py",
        "scripted.py",
        "written_call.py",
        "hub_server.py",
    )  # fixtures, an endpoint, a call and a Hub that tests use
    assert {path for path in written if Path(path).name not in beside} == collected
