"""benchmarks/training.py gives each notebook parameters that it knows, and prints speed, memory and time a row."""

import importlib.util

from toolset_nb.paths import repo_root
from toolset_nb.runs import Run
from toolset_nb.settings import KTOSettings, SFTSettings, check


def test_the_benchmark_of_training_runs_both_notebooks_with_parameters_that_they_have(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("bench", repo_root() / "benchmarks" / "training.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)

    def notebook(name, **parameters):
        check({"sft": SFTSettings, "kto": KTOSettings}[name], parameters)
        run = Run.start(name, "tiny", parameters={"batch_size": 2, "gradient_accumulation": 1})
        for step in (4, 8):
            run.log(
                {
                    "step": step,
                    "num_tokens": 100 * step,
                    "interval_time": 2.0,
                    "memory_gb": 3.5,
                    "timestamp": "2026-01-01",
                }
            )
        return run

    monkeypatch.setattr(bench, "notebook", notebook)
    monkeypatch.setattr(bench, "plain_loop", lambda rows, values: 100.0)
    monkeypatch.setattr(bench.training, "load_rows", lambda *_: [])
    monkeypatch.setattr(bench.sys, "argv", ["training.py"])
    monkeypatch.setenv("TOOLSET_NB_RUNS", "set back after the test")
    bench.main()
    told = capsys.readouterr().out
    assert "SFT by the notebook 200 tokens/s, a plain loop 100: ratio 2.00; peak 3.5 GB, 250 s per 1,000 rows" in told
    assert "KTO by the notebook 200 tokens/s: 1.00 times SFT's time a token; peak 3.5 GB" in told
