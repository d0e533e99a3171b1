"""commandManager: the editor's command palette, kept as a registry in the state."""

from typing import Any

from toolset_nb.vault.files import VaultError


def list_commands(vault: Any, given: Any) -> dict:
    """Commands whose name or id contains the filter."""
    wanted = (given.filter or "").casefold()
    commands = vault.state.data["commands"].values()
    found = [command for command in commands if wanted in f"{command['name']}\n{command['id']}".casefold()]
    return {"commands": found, "total": len(found)}


def execute_command(vault: Any, given: Any) -> dict:
    """Note that a command was run; what a command of the editor does cannot happen here."""
    if given.commandId not in vault.state.data["commands"]:
        raise VaultError("NOT_FOUND", f"Command not found: {given.commandId!r:.80}")
    vault.state.data["ui"]["lastCommand"] = given.commandId
    vault.state.changed = True
    return {"commandId": given.commandId}
