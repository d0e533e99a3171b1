"""What a run shows and writes while it trains: log.jsonl, a line or a live plot a logged step, warnings, checkpoint markers."""

import contextlib
import math
import os
import time
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

from toolset_nb import energy, jsonl
from toolset_nb.runs import Run
from toolset_nb.training.answers import HELD_OUT, held_out
from toolset_nb.training.health import health
from toolset_nb.training.plots import plot
from toolset_nb.training.resume import rotate, seal


def is_interactive(choice: str = "auto") -> bool:
    """Whether live plots and progress bars make sense: a front end is attached, or what runs the notebook was started in one."""
    if choice != "auto":
        return choice == "yes"
    return any(name in os.environ for name in ("COLAB_RELEASE_TAG", "JPY_SESSION_NAME", "VSCODE_PID"))


def cadence(settings: Any, values: dict[str, Any], rows: int) -> tuple[int, int]:
    """Steps between (two lines of the log, two checkpoints).

    Where the settings say 0, about a twentieth and an eighth of the run, at most 20 and 100 steps.
    """
    together = values["batch_size"] * values["gradient_accumulation"] * int(os.environ.get("WORLD_SIZE", "1"))
    steps = settings.max_steps or math.ceil(values["epochs"] * math.ceil(rows / together))
    return settings.logging_steps or min(max(steps // 20, 1), 20), settings.save_steps or min(max(steps // 8, 1), 100)


def quieten(trainer) -> None:
    """Removes the trainer's own table and prints, so that each logged step is shown once."""
    from transformers.trainer_callback import PrinterCallback
    from transformers.utils.notebook import NotebookProgressCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(NotebookProgressCallback)


def callbacks(run: Run, interactive: bool, method: str, settings: Any) -> list:
    """Trainer callbacks that write log.jsonl, print plain lines or a live plot, warn of trouble, and mark whole checkpoints.

    Every `eval_steps` steps of the settings (0: never) the model answers twenty prompts that are not in the data; see
    `held_out`.
    """
    import torch
    from transformers import TrainerCallback

    class RunLog(TrainerCallback):
        def on_train_begin(self, args, state, control, train_dataloader=None, **_):
            self.lengths = _running_lengths(train_dataloader)
            self.started = self.last = time.perf_counter()
            self.first_step, self.display, self.warned = state.global_step, None, {}
            done = [row for row in run.history() if row["step"] <= state.global_step]
            self.before = self.tokens = done[-1]["num_tokens"] if done else 0  # a resumed run goes on counting
            self.joules = energy.joules()
            self.keep, args.save_total_limit = args.save_total_limit, None  # rotated here, after the marker
            args.logging_nan_inf_filter = False  # else a loss that is no number is logged as the mean of those before
            if state.is_world_process_zero:
                rotate(Path(args.output_dir), None)  # what is torn would else be written into

        def on_train_end(self, args, state, control, **_):
            args.save_total_limit = self.keep
            if state.is_world_process_zero:
                energy.add(run, self.joules)

        def on_step_end(self, args, state, control, model=None, processing_class=None, **_):
            if settings.eval_steps and state.global_step % settings.eval_steps == 0:
                # by every process: the weights may be split over them
                share = held_out(model, processing_class, run.rendering())
                if not state.is_world_process_zero:
                    return
                jsonl.append(run.folder / "held_out.jsonl", {"step": state.global_step, "well_formed": share})
                print(
                    f"step {state.global_step}: {share:.0%} well-formed calls on {HELD_OUT} held-out prompts",
                    flush=True,
                )

        def on_log(self, args, state, control, logs=None, **_):
            if not logs or "loss" not in logs or not state.is_world_process_zero:
                return
            now = time.perf_counter()
            done, left = state.global_step - self.first_step, state.max_steps - state.global_step
            tokens = _tokens_seen(self.lengths, state.epoch)
            if "num_tokens" in logs:  # by TRL, from where it began; unsloth on CUDA does not log it
                tokens = self.before + logs["num_tokens"]
            gpu = torch.cuda.is_available()
            fields = {
                "step": state.global_step,
                "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
                "interval_time": round(now - self.last, 3),
                **logs,
                "num_tokens": tokens,
                "tokens_per_second": round((tokens - self.tokens) / max(now - self.last, 1e-9), 1),
                "memory_gb": round(torch.cuda.max_memory_allocated() / 1e9 if gpu else _resident_gb(), 2),
                "eta_seconds": round((now - self.started) / max(done, 1) * left),
            }
            with contextlib.suppress(Exception):  # only with NVIDIA's monitoring library; never worth a failed run
                fields |= {"gpu_percent": torch.cuda.utilization()} if gpu else {}
            self.last, self.tokens = now, tokens
            run.log(fields)
            for cause, remedy in health(run.history(), method, state.max_steps).items():
                if cause not in self.warned:
                    self.warned[cause] = remedy
                    print(f"! {cause} (step {state.global_step}). {remedy}", flush=True)
                    run.update(warnings=self.warned)
            line = _line(fields, state.max_steps)
            if interactive:
                self._draw(run, line)
            else:
                print(line, flush=True)

        def on_save(self, args, state, control, **_):
            if torch.distributed.is_initialized():
                torch.distributed.barrier()  # each process writes its own random state
            if state.is_world_process_zero:
                seal(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)
                rotate(Path(args.output_dir), self.keep)

        def _draw(self, run, line):
            from IPython.display import display

            figure = plot(run.history(), method, line)
            if self.display is None:
                self.display = display(figure, display_id=True)
            else:
                self.display.update(figure)

    return [RunLog()]


def _running_lengths(loader) -> list[int]:
    """Tokens of the rows up to each one, in the order in which they are trained on; [0] where no row holds `input_ids`."""
    rows = getattr(loader, "dataset", None)
    if "input_ids" not in (getattr(rows, "column_names", None) or ()):
        return [0]
    return [0, *accumulate(map(len, rows["input_ids"]))]


def _tokens_seen(lengths: list[int], epoch: float) -> int:
    """Tokens of so many passes over the rows."""
    whole, part = divmod(round(epoch * (len(lengths) - 1)), len(lengths) - 1 or 1)
    return whole * lengths[-1] + lengths[part]


def _line(fields: dict[str, Any], steps: int) -> str:
    margin = (
        f"  margin {fields['rewards/margins']:.3f}  KL {fields.get('kl', 0):.3f}" if "rewards/margins" in fields else ""
    )
    minutes, seconds = divmod(fields["eta_seconds"], 60)
    return (
        f"step {fields['step']:>5}/{steps}  loss {fields['loss']:.4f}  lr {fields.get('learning_rate', 0):.2e}{margin}  "
        f"{fields['tokens_per_second']:.0f} tokens/s  {fields['memory_gb']:.1f} GB  ETA {minutes:.0f}:{seconds:02.0f}"
    )


def _resident_gb() -> float:
    """Peak resident memory of this process in GB."""
    import sys

    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e9
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)
