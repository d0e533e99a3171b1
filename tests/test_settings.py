"""Parameters: what papermill leaves behind becomes the right type; anything else is an error that names the parameter."""

import os

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from toolset_nb.paths import repo_root
from toolset_nb.settings import (
    DatasetSettings,
    EvaluateSettings,
    ExportSettings,
    KTOSettings,
    PipelineSettings,
    SettingsError,
    SFTSettings,
    check,
    choices,
    from_yaml,
    origins,
    read,
)

MODELS = [SFTSettings, KTOSettings, EvaluateSettings]
TOKENS = ["hf_" + "aB3" * 12, "sk-proj-" + "aB3_" * 12, "sk-" + "aB3" * 12, "ghp_" + "aB3" * 12]

LEFTOVERS = [
    ("push_to_hub", "false", False),
    ("push_to_hub", "True", True),
    ("push_to_hub", "no", False),
    ("push_to_hub", "off", False),
    ("learning_rate", "2e-4", 2e-4),
    ("learning_rate", 0, 0.0),
    ("model_size", "7B", "7b"),
    ("model_size", " 7b ", "7b"),
    ("max_steps", 1000.0, 1000),
    ("max_steps", "60", 60),
    ("max_steps", 60.0, 60),
    ("max_steps", 0, 0),
    ("epochs", "1", 1.0),
    ("report_to", "None", "none"),
    ("interactive", "YES", "yes"),
]

BAD = [
    ("56 a time of day", "push_to_hub", "12:30", "true or false"),
    ("56 a word", "push_to_hub", "maybe", "true or false"),
    ("56 nothing", "push_to_hub", None, "true or false"),
    ("57 a number", "model_size", 7, "'7b'"),
    ("57 an empty size", "model_size", "", "'7b'"),
    ("57 a size that does not exist", "model_size", "70b", "'13b'"),
    ("58 a power as text", "max_steps", "1e3", "a whole number"),
    ("58 a fraction", "max_steps", 1.5, "a whole number"),
    ("58 a fraction as text", "max_steps", "1.5", "a whole number"),
    ("58 below zero", "max_steps", -1, "greater than or equal to 0"),
    ("58 longer than a life", "max_steps", 1e18, "less than or equal to"),
    ("58 true", "max_steps", True, "a number, not true or false"),
    ("58 thousands of digits", "max_steps", 10**5000, "less than or equal to"),
    ("58 thousands of digits as text", "max_steps", "9" * 5000, "a whole number"),
    ("59 nan", "learning_rate", float("nan"), "less than 1"),
    ("59 nan as text", "learning_rate", "nan", "less than 1"),
    ("59 inf", "epochs", "inf", "less than or equal to 100"),
    ("59 true", "learning_rate", True, "a number, not true or false"),
    ("61 a path upwards", "run_name", "../../etc", "no folder"),
    ("61 an absolute path", "run_name", "/tmp/x", "no folder"),
    ("61 a folder", "run_name", "a/b", "no folder"),
    ("61 a device", "run_name", "CON", "not reserved"),
    ("61 a device with an ending", "run_name", "nul.txt", "not reserved"),
    ("61 the link", "run_name", "latest", "not reserved"),
    ("61 300 characters", "run_name", "a" * 300, "80 at most"),
    ("61 a line end", "run_name", "a\n", "no folder"),
    ("68 a line end", "base_model", "unsloth/Qwen3-8B\n", "no blanks"),
    ("68 a revision", "base_model", "unsloth/Qwen3-8B@main", "no '@'"),
    ("a hub name of three parts", "hub_repo", "a/b/c", "a Hub name such as user/model"),
    ("a rate of 2", "learning_rate", 2, "less than 1"),
    ("a seed of 33 bits", "seed", 2**32, "less than"),
    ("a list", "dataset", ["x.jsonl"], "a valid string"),
]


@pytest.mark.parametrize(("name", "given", "value"), LEFTOVERS)
def test_what_papermill_leaves_behind_becomes_the_right_type(name, given, value):
    found = getattr(check(SFTSettings, {name: given}), name)
    assert found == value and type(found) is type(value)


def test_a_tracker_has_to_be_installed(monkeypatch):
    monkeypatch.setattr("toolset_nb.settings.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="report_to.*pip install trackio"):
        check(SFTSettings, {"report_to": "trackio"})
    monkeypatch.setattr("toolset_nb.settings.find_spec", lambda name: "found")
    assert check(SFTSettings, {"report_to": "Trackio"}).report_to == "trackio"


@pytest.mark.parametrize(("name", "value", "expected"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_value_is_named_with_its_parameter_and_what_is_expected(name, value, expected):
    with pytest.raises(SettingsError) as caught:
        check(SFTSettings, {name: value})
    message = str(caught.value)
    assert message.startswith(f"parameter {name} is ") and expected in message
    assert len(message) < 300 and "\n" not in message


def test_every_bad_value_has_a_line_of_its_own():
    with pytest.raises(SettingsError) as caught:
        check(SFTSettings, {"max_steps": "many", "epochs": "nan", "modelsize": "7b"})
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("learning_rat", "did you mean learning_rate?"),
        ("modelsize", "did you mean model_size?"),
        ("max_step", "did you mean max_steps?"),
        ("zzz", "known: seed, interactive"),
    ],
)
def test_60_an_unknown_name_is_refused_with_a_suggestion(name, hint):
    with pytest.raises(SettingsError, match="unknown parameter") as caught:
        check(SFTSettings, {name: 1})
    assert name in str(caught.value) and hint in str(caught.value)


@pytest.mark.parametrize("model", [EvaluateSettings, ExportSettings, DatasetSettings])
def test_a_run_name_is_refused_where_no_run_is_made(model):
    assert check(PipelineSettings, {"run_name": "mine"}).run_name == check(KTOSettings, {"run_name": "mine"}).run_name
    with pytest.raises(SettingsError, match="unknown parameter run_name"):
        check(model, {"run_name": "mine"})


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize(
    "name", ["hf_token", "hub_repo", "run_name", "max_steps", "model_size", "base_modle", "push_to_hub"]
)
def test_62_a_pasted_token_never_reaches_the_message(name, token):
    with pytest.raises(SettingsError) as caught:
        check(SFTSettings, {name: f" {token}@"})
    assert name in str(caught.value)
    assert "aB3aB3" not in str(caught.value) and "aB3_aB3" not in str(caught.value)


def test_62_the_value_of_a_parameter_named_like_a_secret_is_not_shown_nor_a_token_used_as_a_name():
    with pytest.raises(SettingsError) as caught:
        check(SFTSettings, {"wandb_api_key": "0123456789abcdef", TOKENS[0]: 1})
    assert "0123" not in str(caught.value) and "aB3" not in str(caught.value)


@pytest.mark.parametrize(("model", "name"), [(KTOSettings, "desirable_weight"), (EvaluateSettings, "timeout")])
@pytest.mark.parametrize("value", ["inf", float("inf"), "1e999"])
def test_59_a_number_without_an_upper_limit_is_finite_all_the_same(model, name, value):
    with pytest.raises(SettingsError, match=f"parameter {name} is .*; expected a finite number"):
        check(model, {name: value})


@pytest.mark.parametrize("odd", [1, 3])
def test_a_kto_batch_of_odd_rows_is_refused_since_it_would_part_a_pair(odd):
    assert check(KTOSettings, {"batch_size": 2}).batch_size == 2
    with pytest.raises(SettingsError, match=f"batch_size is {odd}; expected an even number: KTO's rows come in pairs"):
        check(KTOSettings, {"batch_size": odd})


PROFILES = [
    path
    for path in sorted((repo_root() / "params").glob("*.yaml"))
    if path.stem not in ("models", "servers", "ci_evaluate", "ci_export")
]


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_machines_profile_serves_sft_and_kto(path):
    values = from_yaml(path.read_text("utf-8"), path.name)
    for model in (SFTSettings, KTOSettings):
        assert check(model, values).model_dump(include=values.keys()) == values
    assert values.get("batch_size", 2) % 2 == 0  # KTO takes pairs


@pytest.mark.parametrize("model", MODELS)
def test_the_defaults_are_valid_and_cannot_be_changed_later(model):
    settings = check(model, {})
    assert check(model, settings.model_dump()) == settings
    with pytest.raises(ValueError):
        settings.seed = 1


def test_choices_lists_the_words_of_every_closed_parameter():
    assert choices(SFTSettings)["model_size"] == ["auto", "tiny", "3b", "7b", "13b", "20b"]
    assert choices(EvaluateSettings)["call_format"] == ["hermes", "text"]


FORM = 'max_steps: int = 0  # @param {type:"integer"}\nmodel_size: str = "auto"  # @param ["auto", "tiny"]'
INJECTED = '# Parameters\nmax_steps = 60\nmodel_size = "TINY"\n'


def kernel(*cells: str) -> dict:
    """Globals after running cells in a fresh kernel, with IPython's history."""
    namespace = {"In": [""]}
    for cell in cells:
        namespace["In"].append(cell)
        exec(cell, namespace)
    return namespace


def test_the_form_alone_gives_its_values():
    assert read(SFTSettings, kernel(FORM)).model_dump() == check(SFTSettings, {}).model_dump()


def test_the_injected_cell_wins_over_the_form():
    settings = read(SFTSettings, kernel(FORM, INJECTED))
    assert (settings.max_steps, settings.model_size) == (60, "tiny")


def test_names_of_other_cells_are_no_parameters():
    settings = read(SFTSettings, kernel("answer = 42\nepochs = 9", FORM, "count = 3"))
    assert settings.epochs == 0


def test_an_unknown_name_in_the_injected_cell_stops_the_run():
    with pytest.raises(SettingsError, match="did you mean learning_rate"):
        read(SFTSettings, kernel(FORM, "# Parameters\nlearning_rat = 1"))


def test_a_notebook_run_twice_in_one_kernel_takes_the_later_form():
    edited = FORM.replace("= 0", "= 7") + "\nseed: int = 1  # @param"
    assert read(SFTSettings, kernel(FORM + "\nwrong = 1  # @param", "x = 1", edited)).max_steps == 7
    assert read(SFTSettings, kernel(edited, "x = 1", FORM)).seed == 42


def test_a_script_without_ipython_takes_every_simple_global():
    namespace = {"__name__": "__main__", "_private": 1, "max_steps": 5, "path": object(), "check": check}
    assert read(SFTSettings, namespace).max_steps == 5
    with pytest.raises(SettingsError, match="did you mean max_steps"):
        read(SFTSettings, {"max_stepz": 5})


@pytest.mark.parametrize("text", ["epochs: 1\nepochs: 2", "{epochs: 1, epochs: 2}"])
def test_65_a_key_that_stands_twice_is_refused(text):
    with pytest.raises(SettingsError, match="mine.yaml is .*a key stands twice"):
        from_yaml(text, "mine.yaml")


def test_66_a_value_of_billions_of_parts_is_shown_short():
    value = "x"
    for _ in range(40):
        value = [value] * 9  # as YAML's aliases make it
    with pytest.raises(SettingsError) as caught:
        check(SFTSettings, {"max_rows": value})
    assert "parameter max_rows is [[" in str(caught.value) and len(str(caught.value)) < 200


names = st.one_of(st.sampled_from(sorted(SFTSettings.model_fields)), st.text(max_size=30))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=40), st.binary(max_size=9)),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3),
    max_leaves=5,
)


@effort(deadline=None)  # the first misspelt name imports the module that finds the nearest one
@given(st.sampled_from(MODELS), st.dictionaries(names, values, max_size=4))
def test_check_raises_nothing_but_settings_errors(model, given):
    try:
        settings = check(model, given)
    except SettingsError as error:
        assert str(error)
    else:
        assert check(model, settings.model_dump()) == settings


def test_a_notebook_reads_dot_env_and_the_environment_wins(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("HF_TOKEN=from-file\nTOOLSET_NB_CACHE=from-file\n")
    monkeypatch.setenv("TOOLSET_NB_ROOT", str(tmp_path))
    monkeypatch.setenv("TOOLSET_NB_CACHE", "from-environment")
    monkeypatch.setenv("HF_TOKEN", "to be removed again after the test")
    monkeypatch.delenv("HF_TOKEN")
    read(SFTSettings, {})
    assert (os.environ["HF_TOKEN"], os.environ["TOOLSET_NB_CACHE"]) == ("from-file", "from-environment")


def test_where_each_value_came_from_is_known():
    form = 'epochs: float = 0  # @param {type:"number"}\nmax_rows: int = 9  # @param {type:"integer"}'
    namespace = {"In": ["", form, "# Parameters\nepochs = 2\n"], "epochs": 2, "max_rows": 9}
    found = read(SFTSettings, namespace)
    assert origins(found) == {"epochs": "papermill", "max_rows": "settings cell"}
    assert origins(SFTSettings(seed=1)) == {"seed": "code"}
