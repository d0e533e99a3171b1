"""Executable tasks: what a vault has to look like after a model has done what was asked, and whether it does.

A task names its vault (`fixture`), the request, the calls that solve it (`gold`), what `must_change`, what `may_change`, and for
requests that only look something up what `must_call` (`or`: another call that answers as well). Everything else must stay as it
was. Where no call is due, `expected` says ask, refuse or talk. The file is datasets/prompts/tasks.json, its form
schemas/prompt_set.json.
"""

from toolset_nb.tasks.arguments import PATHS, agree, plain, same
from toolset_nb.tasks.outcomes import Fixtures, Outcome, action_faults, faults, load, path, perform
from toolset_nb.tasks.states import expectations
from toolset_nb.tasks.words import asks, refuses, word_faults

__all__ = [
    "PATHS",
    "Fixtures",
    "Outcome",
    "action_faults",
    "agree",
    "asks",
    "expectations",
    "faults",
    "load",
    "path",
    "perform",
    "plain",
    "refuses",
    "same",
    "word_faults",
]
