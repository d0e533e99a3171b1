"""The recipes run the same papermill command elsewhere: they can be read, name real parameters, and hold no secret."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from toolset_nb import settings
from toolset_nb.paths import repo_root

RECIPES = repo_root() / "recipes"


def command_of(path: Path) -> str:
    text = path.read_text("utf-8")
    return yaml.safe_load(text)["run"] if path.suffix == ".yaml" else text


@pytest.mark.parametrize("path", sorted(RECIPES.iterdir()), ids=lambda path: path.name)
def test_a_recipe_names_a_notebook_and_real_parameters_and_no_token(path):
    command = command_of(path)
    notebook = re.search(r"papermill (notebooks/\w+\.ipynb)", command)[1]
    assert (repo_root() / notebook).is_file()
    names = re.findall(r" -p (\w+) ", command)
    assert "model_size" in names and set(names) <= settings.SFTSettings.model_fields.keys()
    assert not settings.SECRET.search(path.read_text("utf-8"))


def test_skypilots_task_has_what_it_needs():
    task = yaml.safe_load((RECIPES / "skypilot.yaml").read_text("utf-8"))
    assert task.keys() == {"name", "resources", "workdir", "envs", "file_mounts", "setup", "run"}
    assert task["envs"]["TOOLSET_NB_RUNS"] in task["file_mounts"]
    assert "-p resume auto" in task["run"] and "-p run_name" in task["run"]  # on another machine after a preemption


def test_the_job_is_one_argument_list_with_the_values_given(tmp_path):
    (tmp_path / "hf").write_text('#!/bin/sh\nprintf "%s\\n" "$#" "$@"\n')
    (tmp_path / "hf").chmod(0o755)
    done = subprocess.run(
        ["/bin/bash", RECIPES / "huggingface_jobs.sh", "me/model", "3b"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    count, *arguments = done.stdout.splitlines()
    assert (count, arguments[:2]) == ("12", ["jobs", "run"])
    inner = shlex.split(done.stdout.partition("\n-c\n")[2])
    assert inner[-2:] == ["hub_repo", "me/model"] and "3b" in inner
