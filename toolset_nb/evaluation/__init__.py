"""Asking models prompts, executing their calls in a private vault, judging what came of it, and comparing models.

prompts: the sets, and the chat a prompt becomes; agent: one attempt; verdicts: what it is worth; statistics: rates, pass^k,
paired tests; targets: what is asked, and how; runner, journal: many attempts, resumable; report, page, plots: what people read.
"""

from toolset_nb.evaluation.agent import attempt
from toolset_nb.evaluation.journal import Journal
from toolset_nb.evaluation.prompts import EvaluationError, load_prompts, messages, prompt_file, prompt_sets
from toolset_nb.evaluation.report import comparison, markdown, read_reports, report, save, shares, summarise, table
from toolset_nb.evaluation.runner import Control, Progress, evaluate, exit_code, run
from toolset_nb.evaluation.targets import asking, manifest, open_target, report_folder, target_gguf, target_names
from toolset_nb.evaluation.verdicts import MEASURES, Record, agents, judge

__all__ = [
    "MEASURES",
    "Control",
    "EvaluationError",
    "Journal",
    "Progress",
    "Record",
    "agents",
    "asking",
    "attempt",
    "comparison",
    "evaluate",
    "exit_code",
    "judge",
    "load_prompts",
    "manifest",
    "markdown",
    "messages",
    "open_target",
    "prompt_file",
    "prompt_sets",
    "read_reports",
    "report",
    "report_folder",
    "run",
    "save",
    "shares",
    "summarise",
    "table",
    "target_gguf",
    "target_names",
]
