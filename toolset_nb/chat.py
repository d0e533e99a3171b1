"""Talking to a model that works in a vault: requests in words, its calls executed, what they changed.

`Chat` is the conversation; `Asking` stands in front of a vault that somebody uses and lets a person see and refuse each write.
"""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from toolset_nb import evaluation
from toolset_nb.calls import Call
from toolset_nb.evaluation.agent import Attempt, Turn, converse
from toolset_nb.evaluation.prompts import offered_tools
from toolset_nb.settings import EvaluateSettings
from toolset_nb.tools import catalogue
from toolset_nb.vault import Vault
from toolset_nb.vault.snapshots import Difference, diff

REFUSED = "The user declined this call. Ask what to do instead."


class Chat:
    """A conversation with a target (a run, "base" or a server) on a vault; `with Chat(..) as chat`. For one thread."""

    def __init__(self, target: str, vault: Any, config: EvaluateSettings):
        self.target, self.vault, self.config = target, vault, config
        self.messages: list[dict] = []

    def __enter__(self) -> "Chat":
        self._stack = ExitStack()
        self.label, self.endpoint = self._stack.enter_context(evaluation.open_target(self.target, self.config))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, words: str, told: Callable[[Turn], None] = lambda turn: None) -> Attempt:
        """One request and all that the model does about it; `told` hears of every reply with its calls and results."""
        prompt = {"id": "chat", "question": words, "expected_tools": []}
        if not self.messages:
            self.messages = evaluation.messages(prompt, self.config)[:-1]
        made = Attempt(chat=[*self.messages, {"role": "user", "content": words}])
        converse(made, self.endpoint, self.config, self.vault, tools=offered_tools(prompt, self.config), told=told)
        self.messages = made.chat
        return made


class Asking:
    """A vault whose writes are tried on a private copy first and executed only when `approve` says so.

    `approve` is given the call and what it would change; a call that the vault would refuse, or that only looks, is not asked
    about.
    """

    def __init__(self, vault: Vault, approve: Callable[[Call, Difference], bool]):
        self.vault, self.approve = vault, approve

    def call(self, name: str, arguments: Any) -> dict:
        """The vault's result, or a failure that says the user declined."""
        tool = catalogue().tools.get(name)
        if tool is None or not tool.mutates:
            return self.vault.call(name, arguments)
        rehearsed = self.vault.rehearse(name, arguments)
        if not rehearsed["success"]:
            return rehearsed
        if not self.approve(Call(name, arguments), self._difference(name, arguments)):
            return {"success": False, "error": REFUSED, "code": "DECLINED"}
        return self.vault.call(name, arguments)

    def _difference(self, name: str, arguments: Any) -> Difference:
        with tempfile.TemporaryDirectory() as folder:
            copy = self.vault.copy(Path(folder) / "vault")
            before = copy.snapshot()
            copy.call(name, arguments)
            return diff(before, copy.snapshot())
