"""Right calls, made up from what a vault holds: for each tool and variant the slots of a request, the arguments, and a check.

The variants and their slots are those of datasets/voices. A builder raises LookupError where a vault has nothing that fits.
"""

import re

from toolset_nb.synth.scenarios import (
    agent_manager,
    command_manager,
    content_manager,
    memory_manager,
    vault_librarian,
    vault_manager,
)
from toolset_nb.synth.scenarios.parts import (
    Check,
    Scenario,
    answered,
    found,
    gone,
    is_folder,
    moved,
    note_slots,
    nothing,
    reads,
    stored,
)
from toolset_nb.synth.worlds import World

__all__ = [
    "Check",
    "Scenario",
    "answered",
    "found",
    "gone",
    "is_folder",
    "make",
    "moved",
    "note_slots",
    "nothing",
    "reads",
    "stored",
]
BUILDERS = {
    "agentManager": agent_manager,
    "commandManager": command_manager,
    "contentManager": content_manager,
    "memoryManager": memory_manager,
    "vaultLibrarian": vault_librarian,
    "vaultManager": vault_manager,
}


def make(world: World, tool: str) -> Scenario:
    """A right call of one tool in a world; raises LookupError where the world has nothing for it."""
    agent, _, mode = tool.rpartition("_")
    if agent not in BUILDERS:  # get_tools
        agent, mode = "commandManager", tool
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", mode).lower()
    return Scenario(tool, *getattr(BUILDERS[agent], name)(world))
