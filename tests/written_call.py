"""A call as a model writes it, in a context that passes every check."""

from toolset_nb.calls import Call, render

CONTEXT = {
    "sessionId": "session_1732300800000_a1b2c3d4e",
    "workspaceId": "default",
    "sessionDescription": "Sorting the score library",
    "sessionMemory": "Two shelves are done.",
    "toolContext": "The user asked for it.",
    "primaryGoal": "A tidy library",
    "subgoal": "One folder more",
}
TOOL = "vaultManager_createFolder"
ARGUMENTS = {"context": CONTEXT, "path": "Scores"}


def call(name: str = TOOL, context: dict = CONTEXT, **arguments) -> str:
    """A call in Hermes form, by default the one that makes the folder Scores."""
    return render([Call(name, {"context": context, **(arguments or {"path": "Scores"})})])


RIGHT = call()
