"""What surrounds a TRL trainer in the notebooks: rows in, log, plots, checks and answers out.

The trainer call itself stands in the notebook, since people open it to learn that. Not here: loading models (`models`), the run
folder (`runs`), or any change to TRL's loss.
"""

from toolset_nb.training.answers import answer, held_out, show_answers
from toolset_nb.training.checks import check_reference, check_size, check_supervised, check_wanted
from toolset_nb.training.data import arrange, data_path, drop_long, join_answers, load_rows, to_dataset
from toolset_nb.training.health import health
from toolset_nb.training.plots import plot, save_plots
from toolset_nb.training.progress import cadence, callbacks, is_interactive
from toolset_nb.training.record import describe, save_adapter
from toolset_nb.training.recovery import OutOfMemory, build, train
from toolset_nb.training.resume import MARKER, checkpoints, resume_point

__all__ = [
    "MARKER",
    "OutOfMemory",
    "answer",
    "arrange",
    "build",
    "cadence",
    "callbacks",
    "check_reference",
    "check_size",
    "check_supervised",
    "check_wanted",
    "checkpoints",
    "data_path",
    "describe",
    "drop_long",
    "health",
    "held_out",
    "is_interactive",
    "join_answers",
    "load_rows",
    "plot",
    "resume_point",
    "save_adapter",
    "save_plots",
    "show_answers",
    "to_dataset",
    "train",
]
