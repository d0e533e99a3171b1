"""What the pipeline gives each notebook, and where it goes on; the notebooks themselves run in tests/notebooks."""

import json
import os
from types import SimpleNamespace

import nbformat
import pytest

from toolset_nb import export, models, pipeline, runs
from toolset_nb.__main__ import main
from toolset_nb.paths import repo_root
from toolset_nb.pipeline import PipelineError, plan
from toolset_nb.runs import Run
from toolset_nb.settings import PipelineSettings, SettingsError


@pytest.fixture
def executed(monkeypatch):
    """(step, parameters) in order; training steps leave a run. `fail` holds those that fail, a training step's run with them."""
    import papermill

    class Notebook(list):
        fail: set = set()
        environment: dict = {}

    made = Notebook()

    def execute(source, out, parameters, **_):
        made.append((source.stem, parameters))
        made.environment = dict(os.environ)
        run = Run.start(source.stem, "tiny", parameters["run_name"]) if source.stem in pipeline.TRAINING else None
        if source.stem in made.fail:
            if run:
                run.fail("killed")
            raise ValueError("the disk is full")
        if run:
            run.finish()
        out.write_text("{}")

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    monkeypatch.setattr(pipeline, "_size", lambda asked: "tiny" if asked == "auto" else asked)
    return made


def test_each_step_knows_the_runs_before_it():
    made = plan(PipelineSettings(model_size="tiny", sft_parameters="max_rows: 20, epochs: 2"), "first")
    assert all(given.pop("interactive") == "no" for given in made.values())  # whatever papermill was started in
    assert made["sft"] == {"model_size": "tiny", "run_name": "first-sft", "resume": "auto", "max_rows": 20, "epochs": 2}
    assert made["kto"] == {"sft_run": "first-sft", "run_name": "first-kto", "resume": "auto"}
    assert made["evaluate"] == {"targets": "base,first-sft,first-kto"}
    assert made["export"] == {"run": "first-kto"}
    assert plan(PipelineSettings(steps="export"), "x")["export"]["run"] == "latest"
    assert plan(PipelineSettings(steps="sft,evaluate"), "x")["evaluate"]["targets"] == "base,x-sft"


@pytest.fixture
def profile(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model_size: 7b\nbatch_size: 4\nmax_rows: 3000\n")
    return path


def test_a_machines_profile_goes_to_sft_and_kto_and_what_is_said_of_a_step_goes_before_it(profile):
    made = plan(PipelineSettings(profile=str(profile), kto_parameters="max_rows: 20"), "x")
    assert made["sft"].items() >= {"model_size": "7b", "batch_size": 4, "max_rows": 3000}.items()
    assert made["kto"].items() >= {"batch_size": 4, "max_rows": 20}.items()
    assert "model_size" not in made["kto"]  # that of the SFT run before it
    assert "batch_size" not in made["evaluate"]
    assert plan(PipelineSettings(profile=str(profile), model_size="3b"), "x")["sft"]["model_size"] == "3b"
    assert plan(PipelineSettings(profile="params/h200.yaml"), "x")["sft"]["batch_size"] == 24


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("batch_sice: 4", "step sft: unknown parameter batch_sice"),
        ("- 4", "expected for example"),
        (None, "no such file"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(profile, text, words):
    profile.unlink() if text is None else profile.write_text(text)
    with pytest.raises(SettingsError, match=words):
        plan(PipelineSettings(profile=str(profile)), "x")


def test_a_profile_says_to_sft_alone_how_rows_are_rendered(profile):
    profile.write_text("call_format: text\nmax_rows: 20\n")
    steps = plan(PipelineSettings(profile=str(profile)), "x")
    assert steps["sft"]["call_format"] == "text" and "call_format" not in steps["kto"]
    assert steps["kto"]["max_rows"] == 20


@pytest.mark.parametrize(
    ("values", "words"),
    [({"steps": "sft,fly"}, "steps"), ({"steps": " "}, "steps"), ({"kto_parameters": "just words"}, "kto_parameters")],
)
def test_a_plan_that_cannot_be_names_its_parameter(values, words):
    with pytest.raises(SettingsError, match=f"parameter {words}"):
        plan(PipelineSettings(**values), "x")


WRONG = {
    "export_parameters": (
        "formats: q8_0, parity_prompt: 4",
        "step export: unknown parameter parity_prompt .*did you mean",
    ),
    "kto_parameters": ("batch_size: 1", "step kto: parameter batch_size is 1; expected an even number"),
    "evaluate_parameters": ("trials: many", "step evaluate: parameter trials is 'many'; expected a whole number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_step_will_not_take_is_found_before_the_first(executed, name):
    text, words = WRONG[name]
    with pytest.raises(SettingsError, match=words):
        pipeline.run(PipelineSettings(run_name="first", **{name: text}), lambda line: None)
    assert executed == [] and not (runs.runs_folder() / "first").exists()


def test_a_step_that_uploads_asks_the_hub_before_the_first_is_run(executed, monkeypatch):
    asked = []
    monkeypatch.setattr(export, "check_hub", lambda repo: asked.append((repo, len(executed))))
    config = PipelineSettings(run_name="first", export_parameters="push_to_hub: true, hub_repo: ada/tiny")
    plan(config, "first")
    assert asked == []  # a plan alone asks nobody
    pipeline.run(config, lambda line: None)
    pipeline.run(config, lambda line: None)
    assert asked == [("ada/tiny", 0)]


@pytest.mark.parametrize(
    ("free", "given", "stops"),
    [
        (12.7e9, {}, True),
        (20e9, {}, False),
        (12.7e9, {"model_size": "3b"}, False),
        (12.7e9, {"steps": "sft,kto"}, False),
        (12.7e9, {"steps": "sft,export", "export_parameters": "formats: adapter"}, False),
        (12.7e9, {"steps": "sft,evaluate", "evaluate_parameters": "engine: transformers"}, False),
        (12.7e9, {"base_model": "some/small"}, False),
    ],
)
def test_memory_for_the_merge_is_looked_at_before_the_first_step(executed, monkeypatch, free, given, stops):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free))
    config = PipelineSettings(**{"run_name": "first", "model_size": "7b"} | given)
    if stops:
        with pytest.raises(
            export.ExportError, match="merge 7b in memory .*: 18 GB are needed and 12.7 GB are free; take a sm"
        ):
            pipeline.run(config, lambda line: None)
        assert executed == [] and not (runs.runs_folder() / "first").exists()
    else:
        pipeline.run(config, lambda line: None)
        assert len(executed) == len(config.steps.split(","))


def test_the_size_that_auto_takes_is_asked_of_another_process():
    assert pipeline._size("auto") == models.choose("auto", models.hardware())[0]
    assert pipeline._size("7b") == "7b"


def test_all_steps_run_in_order_and_are_not_run_again(executed):
    config = PipelineSettings(run_name="first")
    folder = pipeline.run(config, lambda line: None)
    assert [step for step, _ in executed] == ["sft", "kto", "evaluate", "export"]
    assert {entry["status"] for entry in json.loads((folder / "pipeline.json").read_text()).values()} == {"complete"}
    pipeline.run(config, lambda line: None)
    assert len(executed) == 4
    pipeline.run(config.model_copy(update={"evaluate_parameters": "trials: 4"}), lambda line: None)
    assert [step for step, _ in executed[4:]] == ["evaluate"]  # given something else, it is another step


def test_a_pipeline_goes_on_at_the_step_that_failed(executed):
    executed.fail = {"kto"}
    config = PipelineSettings(run_name="first")
    with pytest.raises(PipelineError, match="step kto failed .*\n.*kto.ipynb\n.*--run-name first"):
        pipeline.run(config, lambda line: None)
    assert pipeline.status("first")["kto"]["reason"] == "ValueError: the disk is full"
    executed.fail = set()
    executed.clear()
    pipeline.run(config, lambda line: None)
    assert [step for step, _ in executed] == ["kto", "evaluate", "export"]


def test_the_steps_take_this_project_and_leave_their_runs_beside_the_pipeline(executed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOOLSET_NB_RUNS", "mine")
    before = dict(os.environ)
    folder = pipeline.run(PipelineSettings(run_name="first", steps="sft"), lambda line: None)
    assert folder == tmp_path / "mine" / "first"
    given = executed.environment
    assert (given["TOOLSET_NB_ROOT"], given["TOOLSET_NB_RUNS"]) == (str(repo_root()), str(tmp_path / "mine"))
    assert given["PYTHONPATH"].split(os.pathsep)[0] == str(repo_root())
    assert dict(os.environ) == before


WHERE = "import toolset_nb\nprint(Path.cwd(), toolset_nb.__file__)"


def test_a_step_in_colab_fetches_nothing_imports_the_pipelines_project_and_runs_in_its_folder(
    repository_copy, monkeypatch, tmp_path
):
    path = repository_copy / "notebooks" / "export.ipynb"
    notebook = nbformat.read(path, 4)
    setup, form = [cell for cell in notebook.cells if cell.cell_type == "code"][:2]
    notebook.cells = [setup, form, nbformat.v4.new_code_cell(WHERE)]
    nbformat.write(notebook, path)
    monkeypatch.setenv("TOOLSET_NB_ROOT", str(repository_copy))
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    monkeypatch.setenv("TOOLSET_NB_SOURCE", "no such place")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = pipeline.run(PipelineSettings(run_name="first", steps="export"), lambda line: None)
    assert sorted(path.name for path in folder.iterdir()) == ["export.ipynb", "pipeline.json"]
    assert f"{tmp_path / 'here'} {repository_copy}" in (folder / "export.ipynb").read_text()


def test_a_pipelines_folder_is_no_run(executed):
    pipeline.run(PipelineSettings(run_name="first"), lambda line: None)
    assert {run.folder.name for run in runs.list_runs()} == {"first-sft", "first-kto"}


def test_the_command_shows_its_plan_and_returns_2_for_a_step_that_failed(executed, capsys):
    assert main(["pipeline", "--dry-run", "--model-size", "tiny"]) == 0
    assert "sft: interactive=no, model_size=tiny, run_name=NAME-sft" in capsys.readouterr().out
    assert main(["pipeline", "--dry-run", "-f", "params/rtx3090.yaml", "--model-size", "3b"]) == 0
    assert "sft: interactive=no, model_size=3b, batch_size=6" in capsys.readouterr().out
    assert main(["pipeline", "--steps", "fly"]) == 1
    executed.fail = {"sft"}
    assert main(["pipeline", "--run-name", "x"]) == 2
    assert "step sft failed" in capsys.readouterr().err


def test_after_a_run_that_failed_before_its_first_checkpoint_the_later_steps_take_the_second_one(executed):
    executed.fail = {"sft"}
    config = PipelineSettings(run_name="first")
    with pytest.raises(PipelineError):
        pipeline.run(config, lambda line: None)
    executed.fail = set()
    folder = pipeline.run(config, lambda line: None)
    given = dict(executed)
    assert given["kto"]["sft_run"] == "first-sft-2"
    assert given["evaluate"]["targets"] == "base,first-sft-2,first-kto" and given["export"]["run"] == "first-kto"
    state = json.loads((folder / "pipeline.json").read_text())
    assert [state[step].get("run") for step in pipeline.STEPS] == ["first-sft-2", "first-kto", None, None]


def test_a_step_that_is_given_something_else_has_those_after_it_done_again(executed):
    config = PipelineSettings(run_name="first")
    pipeline.run(config, lambda line: None)
    executed.clear()
    pipeline.run(config.model_copy(update={"sft_parameters": "epochs: 2"}), lambda line: None)
    assert [step for step, _ in executed] == list(pipeline.STEPS)
    assert executed[3][1] == {"run": "first-kto-2", "interactive": "no"}
    executed.clear()
    pipeline.run(config.model_copy(update={"sft_parameters": "epochs: 2"}), lambda line: None)
    assert executed == []


def test_every_step_is_given_the_seed_and_whether_someone_watches():
    made = plan(PipelineSettings(seed=7, interactive="yes"), "x")
    assert all(given.items() >= {"seed": 7, "interactive": "yes"}.items() for given in made.values())
