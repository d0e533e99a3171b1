"""What an assistant does in a turn: one call, several, one after the other with results in between, or none.

Each function plays one variant of a behaviour in a scene: it makes up the facts, executes the calls and words the request
(datasets/voices/behaviours). The table `PLAYS` names them all; `wrong` answers for the same prompt come from `negatives`.
"""

from toolset_nb.synth.plays import calling, chains, checking, parts, words
from toolset_nb.synth.plays.parts import Play
from toolset_nb.synth.wording import voices

_MISSING = {
    "append_what": ("contentManager_appendContent", "end", ("text",)),
    "move_where": ("vaultManager_moveNote", "move", ("target_folder",)),
    "rename_note": ("vaultManager_moveNote", "rename", ("new_name",)),
    "rename_folder": ("vaultManager_editFolder", "rename", ("new_name",)),
    "replace_by": ("contentManager_replaceContent", "swap", ("new",)),
    "create_where": ("contentManager_createContent", "new", ("path",)),
    "find_what": ("vaultLibrarian_searchContent", "words", ("query",)),
    "read_which": ("contentManager_readContent", "whole", ("note", "path")),
    "delete_which": ("vaultManager_deleteNote", "delete", ("note", "path")),
    "copy_where": ("vaultManager_duplicateNote", "copy", ("copy_path",)),
    "agent_prompt": ("agentManager_createAgent", "new", ("prompt", "description")),
    "image_where": ("agentManager_generateImage", "plain", ("image_path",)),
    "command_which": ("commandManager_executeCommand", "run", ("command_id",)),
    "workspace_folder": ("memoryManager_createWorkspace", "new", ("folder", "purpose")),
    "tag_state": ("memoryManager_updateState", "tag", ("tag",)),
}
_SIBLINGS = {
    "append": ("contentManager_appendContent", {"end"}),
    "cut": ("contentManager_deleteContent", {"cut"}),
    "copy": ("vaultManager_duplicateNote", {"copy"}),
    "create": ("contentManager_createContent", {"new"}),
    "content": ("vaultLibrarian_searchContent", {"words"}),
    "delete_folder": ("vaultManager_deleteFolder", {"full"}),
    "delete_note": ("vaultManager_deleteNote", {"delete"}),
    "directory": ("vaultLibrarian_searchDirectory", {"both"}),
    "find_replace": ("contentManager_findReplaceContent", {"all"}),
    "lines": ("contentManager_replaceByLine", {"lines"}),
    "list": ("vaultManager_listDirectory", {"folder"}),
    "memory": ("vaultLibrarian_searchMemory", {"any"}),
    "move": ("vaultManager_moveFolder", {"move"}),
    "move_note": ("vaultManager_moveNote", {"move"}),
    "one_agent": ("agentManager_getAgent", {"name"}),
    "open": ("vaultManager_openNote", {"open"}),
    "prepend": ("contentManager_prependContent", {"top"}),
    "read": ("contentManager_readContent", {"whole"}),
    "rename": ("vaultManager_editFolder", {"rename"}),
    "state": ("memoryManager_loadState", {"resume"}),
    "swap": ("contentManager_replaceContent", {"swap"}),
    "workspace": ("memoryManager_loadWorkspace", {"open"}),
}

PLAYS: dict[tuple[str, str], tuple[float, Play]] = {}  # (behaviour, variant) -> (share of all rows, play)


def _table() -> None:
    for tool in voices():
        PLAYS["single_call", tool] = (0.5 / 47, calling.single_call(tool))
    several = {
        ("several_calls", "join"): (0.03, calling.several_calls),
        ("continue_from_memory", "memory"): (0.03, calling.continue_from_memory),
        ("workspace_awareness", "by_name"): (0.01, chains.workspace_by_name),
        ("workspace_awareness", "inside"): (0.012, chains.in_workspace("inside")),
        ("workspace_awareness", "none"): (0.008, chains.in_workspace("none")),
        ("execute_prompt", "agent"): (0.008, chains.prompt_by_agent),
        ("execute_prompt", "other"): (0.012, chains.prompt_by_model),
        ("verify_before_acting", "empty_folder"): (0.01, checking.verify_empty),
        ("verify_before_acting", "has_text"): (0.01, checking.verify_text),
        ("verify_before_acting", "exists"): (0.01, checking.verify_new),
        ("verify_before_acting", "blank"): (0.01, checking.verify_blank),
        ("recover_from_error", "not_found"): (0.008, checking.recover_not_found),
        ("recover_from_error", "in_turn"): (0.006, checking.recover_in_turn),
        ("recover_from_error", "exists"): (0.008, checking.recover_exists),
        ("recover_from_error", "no_match"): (0.008, checking.recover_no_match),
        ("recover_from_error", "again"): (0.01, checking.recover_again),
        ("small_talk", "talk"): (0.015, words.talk("small_talk", "talk", "call_on_small_talk")),
        ("small_talk", "explain"): (0.015, words.talk("small_talk", "explain", "call_on_small_talk")),
        ("unable", "cannot"): (0.03, words.talk("unable", "cannot", "call_when_unable")),
        ("execute_prompt", "own"): (0.01, words.talk("execute_prompt", "own", "call_on_small_talk")),
    }
    PLAYS.update(several)
    for variant in ("top", "few", "folder", "names"):
        PLAYS["limit_reading", variant] = (0.008, calling.limit_reading(variant))
    for variant, (tool, forms) in _SIBLINGS.items():
        PLAYS["sibling_choice", variant] = (0.005, calling.sibling(variant, tool, forms))
    steps = {
        "find_read": chains.find_read,
        "find_append": chains.find_append,
        "find_move": chains.find_move,
        "edit_check": chains.edit_check,
        "list_read": chains.list_read,
        "copy_add": chains.copy_add,
        "folder_note": chains.folder_note,
        "agent_on": chains.agent_switch("agent_on"),
        "agent_off": chains.agent_switch("agent_off"),
        "run_command": chains.run_command,
        "load_state": chains.saved("state", "stateId"),
        "load_session": chains.saved("session", "targetSessionId"),
    }
    for variant, play in steps.items():
        PLAYS["multi_step", variant] = (0.005, play)
    for variant in ("many", "full_folder", "vague", "unsure", "everywhere"):
        PLAYS["ask_first", variant] = (0.013, words.ask_first(variant))
    for variant, (tool, form, hidden) in _MISSING.items():
        PLAYS["ask_missing_argument", variant] = (
            0.0055,
            words.ask_missing(variant, tool, parts.without(tool, form, *hidden)),
        )


_table()
