"""The notebooks run under nbval, in order; a file of its own, so that test_run.py runs beside it."""

import subprocess
import sys

import nbformat
import pytest
from papermilled import CHAIN, environment, options, papermill

pytestmark = pytest.mark.notebooks


def test_every_notebook_runs_under_nbval(tiny_model, tmp_path):
    prepared = []
    for name in CHAIN:
        prepared.append(tmp_path / f"{name}.ipynb")
        done = papermill(name, prepared[-1], *options(name, tiny_model), "--prepare-only")
        assert done.returncode == 0, done.stderr[-2000:]
    flags = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=240", "-x", "-p", "no:cacheprovider"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        *flags,
        *prepared,
    ]  # in this order: kto and evaluate need the runs before
    env = environment(tmp_path / "runs")
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-4000:]
    cells = sum(cell.cell_type == "code" for path in prepared for cell in nbformat.read(path, as_version=4).cells)
    assert f"{cells} passed" in done.stdout
