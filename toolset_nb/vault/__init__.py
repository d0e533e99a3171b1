"""A vault that really executes every tool: real notes in a real folder, and the plugin's own state beside them.

files: paths and confinement; state: records, ids, clock; executor: validation, dispatch, results; one module per agent;
providers: the models behind some tools; snapshots: differences and hashes; fixtures: vaults from seed files; server: MCP.
"""

from toolset_nb.vault.executor import Vault
from toolset_nb.vault.files import VaultError
from toolset_nb.vault.state import FixedClock

__all__ = ["FixedClock", "Vault", "VaultError"]
