"""Every argument that notebooks and toolset_nb give to the training libraries exists in the pinned versions.

The calls are read from the source, so that nothing is listed by hand. unsloth takes long to import: its source is read, too.
"""

import ast
import inspect
import json
import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from toolset_nb.paths import repo_root

LIBRARIES = ("trl", "transformers", "peft", "tokenizers")
RECEIVERS = {  # what a variable of this name holds in notebooks and modules
    "tokenizer": ["transformers.PreTrainedTokenizerBase"],
    "model": ["transformers.GenerationMixin", "peft.PeftModelForCausalLM", "transformers.PreTrainedModel"],
    "network": ["transformers.GenerationMixin"],
    "trainer": ["transformers.Trainer"],
}
FORWARDED = {  # where a factory hands its keywords on to
    "AutoModelForCausalLM.from_pretrained": "transformers.PreTrainedModel.from_pretrained",
    "AutoTokenizer.from_pretrained": "transformers.PreTrainedTokenizerBase.from_pretrained",
    "PreTrainedTokenizerFast": "transformers.PreTrainedTokenizerBase",
    "GenerationMixin.generate": "transformers.GenerationConfig",
}


class Used(NamedTuple):
    """A call with keywords: where it stands, what is called, the keywords."""

    place: str
    target: str
    keywords: list[str]


def sources():
    for path in sorted((repo_root() / "toolset_nb").rglob("*.py")):
        yield str(path.relative_to(repo_root())), path.read_text("utf-8")
    for path in sorted((repo_root() / "notebooks").glob("*.ipynb")):
        cells = ["".join(cell["source"]) for cell in json.loads(path.read_text("utf-8"))["cells"] if "outputs" in cell]
        yield path.name, "\n".join(cell for cell in cells if not cell.startswith("%%"))


@cache
def used() -> list[Used]:
    """Calls of a library's functions and classes, and of methods of what RECEIVERS names."""
    found = []
    for place, source in sources():
        tree = ast.parse(source)
        names = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                names |= {alias.asname or alias.name: alias.name for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (keywords := [word.arg for word in node.keywords if word.arg]):
                first, *rest = ast.unparse(node.func).removeprefix("self.").split(".")
                root = names.get(first, first if first in RECEIVERS and len(rest) < 2 else "")
                target = ".".join([root, *rest])
                if root and all(part.isidentifier() for part in target.split(".")):
                    found.append(Used(f"{place}:{node.lineno}", target, keywords))
    return found


def resolve(dotted: str):
    """The object behind a dotted name, importing as far as there are modules."""
    module, *rest = dotted.split(".")
    found = import_module(module)
    for part in rest:
        found = getattr(found, part)
    return found


def takes(target: str, keyword: str) -> bool:
    """Whether a parameter has this name or, where the rest is taken as **kwargs, the source names it in quotes."""
    function = resolve(target)
    parameters = inspect.signature(function).parameters
    if keyword in parameters:
        return True
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
        return False
    onward = [resolve(onto) for factory, onto in FORWARDED.items() if target.endswith(factory)]
    text = "".join(inspect.getsource(place) for place in (function, *onward))
    return bool(re.search(rf"""["']{keyword}["']""", text))


def test_there_are_calls_to_check():
    targets = {call.target for call in used()}
    assert targets >= {"trl.SFTConfig", "trl.SFTTrainer", "trl.KTOConfig", "trl.KTOTrainer", "peft.LoraConfig"}
    assert targets >= {
        "tokenizer.apply_chat_template",
        "model.generate",
        "transformers.AutoModelForCausalLM.from_pretrained",
    }
    assert {"unsloth.FastLanguageModel.from_pretrained", "unsloth.FastLanguageModel.get_peft_model"} <= targets


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_argument_exists(library):
    calls = [call for call in used() if call.target.startswith(f"{library}.")]
    assert calls
    assert [
        (call.place, call.target, keyword)
        for call in calls
        for keyword in call.keywords
        if not takes(call.target, keyword)
    ] == []


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_every_argument_of_a_method_exists(receiver):
    unknown = []
    for place, target, keywords in used():
        name, _, method = target.partition(".")
        if name == receiver:
            kinds = RECEIVERS[receiver]
            ways = [method] if method else ["forward", "__call__"]  # a model that is called goes forward
            known = next(filter(None, ([f"{k}.{way}" for k in kinds if exists(f"{k}.{way}")] for way in ways)), [])
            assert known, f"{place}: {target} is no method of {RECEIVERS[receiver]}"
            unknown += [(place, word) for word in keywords if not any(takes(method, word) for method in known)]
    assert unknown == []


def exists(dotted: str) -> bool:
    try:
        return bool(resolve(dotted))
    except AttributeError:
        return False


@cache
def unsloth_classes() -> dict[str, ast.ClassDef]:
    """The classes of the two modules that hold FastLanguageModel and its base."""
    folder = Path(find_spec("unsloth").submodule_search_locations[0]) / "models"
    trees = [ast.parse((folder / name).read_text("utf-8")) for name in ("loader.py", "llama.py")]
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def unsloth_parameters(name: str, method: str) -> set[str]:
    """The parameters of a class's method, read from unsloth's source; where it takes **kwargs, those of its base's method too."""
    classes = unsloth_classes()
    found = set()
    while name in classes:
        for node in classes[name].body:
            if isinstance(node, ast.FunctionDef) and node.name == method:
                given = node.args
                found |= {entry.arg for entry in [*given.posonlyargs, *given.args, *given.kwonlyargs]}
                if not given.kwarg:
                    return found
        name = ast.unparse(classes[name].bases[0]) if classes[name].bases else ""
    return found


def test_every_argument_of_unsloth_exists():
    calls = [call for call in used() if call.target.startswith("unsloth.")]
    for call in calls:
        _, name, method = call.target.split(".")
        assert set(call.keywords) <= unsloth_parameters(name, method), call
    assert calls


@pytest.mark.parametrize(
    ("target", "keyword"),
    [
        ("trl.SFTConfig", "max_seq_length"),
        ("peft.LoraConfig", "rank"),
        ("transformers.AutoModelForCausalLM.from_pretrained", "quantise"),
        ("transformers.GenerationMixin.generate", "max_tokens"),
    ],
)
def test_an_argument_that_does_not_exist_is_noticed(target, keyword):
    assert not takes(target, keyword)


def test_an_argument_that_unsloth_does_not_have_is_noticed():
    assert "lora_rank" not in unsloth_parameters("FastLanguageModel", "get_peft_model")
    assert unsloth_parameters("FastLanguageModel", "no_such_method") == set()
