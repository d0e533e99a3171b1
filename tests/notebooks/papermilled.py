"""How the tests run notebooks: by papermill's command line, on a random model of 3 million parameters, two training steps each."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHAIN = ("sft_beginner", "sft", "kto", "evaluate", "export")
FAKE_TOKEN = "hf_" + "NoSuchToken" * 3


def environment(folder, **more):
    """This process's environment with runs in `folder`, a token to look for, and no editor or Colab attached."""
    unwanted = ("COLAB_RELEASE_TAG", "JPY_SESSION_NAME", "VSCODE_PID", "TOOLSET_NB_ROOT", "PYTEST_ADDOPTS")
    kept = {key: value for key, value in os.environ.items() if key not in unwanted}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**kept, "TOOLSET_NB_RUNS": str(folder), "PYTHONPATH": path, "HF_TOKEN": FAKE_TOKEN, **more}


def papermill(name, out, *options):
    """papermill's command line, started in the folder of `out`, with runs/ beside it."""
    command = [sys.executable, "-m", "papermill", ROOT / "notebooks" / f"{name}.ipynb", out, "--no-progress-bar"]
    env = environment(out.parent / "runs")
    return subprocess.run([*command, *options], cwd=out.parent, env=env, capture_output=True, text=True, timeout=900)


def options(name, tiny_model):
    """What makes a notebook short."""
    if name == "evaluate":
        return ["-f", ROOT / "params" / "ci_evaluate.yaml"]
    if name == "export":
        return ["-f", ROOT / "params" / "ci_export.yaml"]
    twice = ["-p", "epochs", "2"]  # the reference is then scored beforehand; tests/training has the other way
    tracked = ["-p", "report_to", "tensorboard"] if name == "sft" else []
    model = twice if name == "kto" else ["-p", "model_size", "tiny", "-p", "base_model", tiny_model]
    return ["-f", ROOT / "params" / "ci.yaml", *model, *tracked]
