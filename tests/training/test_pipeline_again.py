"""A pipeline that is started again: which run each step made, and which steps that has done anew."""

import json

import pytest

from toolset_nb import pipeline
from toolset_nb.runs import Run
from toolset_nb.settings import PipelineSettings


@pytest.fixture
def executed(monkeypatch):
    """(step, parameters) in order; the training steps leave a run, or fail when `fail` names them."""
    import papermill

    class Notebook(list):
        fail = ""

    made = Notebook()

    def execute(source, out, parameters, **_):
        made.append((source.stem, parameters))
        if source.stem in pipeline.TRAINING:
            run = Run.start(source.stem, "tiny", parameters["run_name"])
            if source.stem == made.fail:
                run.fail("killed")
                raise ValueError("killed")
            run.finish()

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    return made


def test_after_a_run_that_failed_before_its_first_checkpoint_the_later_steps_take_the_second_one(executed):
    executed.fail = "sft"
    config = PipelineSettings(run_name="first")
    with pytest.raises(pipeline.PipelineError):
        pipeline.run(config, lambda line: None)
    executed.fail = ""
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
    assert executed[3][1] == {"run": "first-kto-2"}
    executed.clear()
    pipeline.run(config.model_copy(update={"sft_parameters": "epochs: 2"}), lambda line: None)
    assert executed == []


def test_every_step_is_given_the_seed_and_whether_someone_watches():
    made = pipeline.plan(PipelineSettings(seed=7, interactive="no"), "x")
    assert all(given.items() >= {"seed": 7, "interactive": "no"}.items() for given in made.values())
