"""Talking to a model that works in a vault: requests in words, its calls executed, what they changed.

`Chat` is the conversation; `Asking` stands in front of a vault that somebody uses and lets a person see and refuse each write.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from functools import cached_property
from typing import Any

from toolset_nb import evaluation
from toolset_nb.calls import Call
from toolset_nb.evaluation.agent import Attempt, Turn, converse
from toolset_nb.evaluation.prompts import offered_tools
from toolset_nb.settings import EvaluateSettings
from toolset_nb.tools import catalogue
from toolset_nb.vault import Vault, VaultError
from toolset_nb.vault.snapshots import Difference, since

REFUSED = "The user declined this call. Ask what to do instead."
NOT_TRIED = "Nothing was changed: the call could not be tried on a copy of the vault ({})."


class Chat:
    """A conversation with a target (a run, "base" or a server) on a vault; `with Chat(..) as chat`. For one thread.

    It is asked as an evaluation would ask it (`evaluation.asking`); but a chat is about no agent in particular, so that where
    the tools of one were shown it is all of them.
    """

    def __init__(self, target: str, vault: Any, config: EvaluateSettings):
        config = evaluation.asking(target, config)
        every = {"tool_exposure": "all"} if config.tool_exposure == "agent" else {}
        self.target, self.vault, self.config = target, vault, config.model_copy(update=every)
        self.messages: list[dict] = []
        self.forgotten = 0

    def __enter__(self) -> "Chat":
        self._stack = ExitStack()
        self.label, self.endpoint = self._stack.enter_context(evaluation.open_target(self.target, self.config))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, words: str, told: Callable[[Turn], None] = lambda turn: None) -> Attempt:
        """One request and all that the model does about it; `told` hears of every reply with its calls and results.

        Where the conversation outgrows the model's context the oldest requests are left out, with all that followed them;
        `forgotten` counts them. A request that does not fit alone stops with `context`, and the conversation starts anew.
        """
        prompt = {"id": "chat", "question": words, "expected_tools": []}
        opening = evaluation.messages(prompt, self.config)[:-1]
        made = Attempt(chat=[*(self.messages or opening), {"role": "user", "content": words}])
        tools, self.forgotten = offered_tools(prompt, self.config), 0
        while True:
            converse(made, self.endpoint, self.config, self.vault, tools=tools, told=told)
            if made.stop != "context":
                break
            made.error = None
            requests = [at for at, message in enumerate(made.chat) if message["role"] == "user"]
            if len(requests) == 1:
                made.chat = opening
                break
            del made.chat[requests[0] : requests[1]]
            self.forgotten += 1
        self.messages = made.chat
        return made


class Asking:
    """A vault whose writes are tried on a private mirror first and executed only when `approve` says so.

    `approve` is given the call and what it changed in the mirror; a call that fails there, or that only looks, is not asked
    about. Until the yes a write touches nothing of the vault itself.
    """

    def __init__(self, vault: Vault, approve: Callable[[Call, Difference], bool]):
        self.vault, self.approve = vault, approve
        self._seen: dict[str, tuple[tuple, tuple]] = {}

    @cached_property
    def _folder(self) -> str:
        """Where the mirror is, for as long as the conversation lasts."""
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def call(self, name: str, arguments: Any) -> dict:
        """The vault's result, or a failure that says the user declined or why the call could not be tried."""
        tool = catalogue().tools.get(name)
        if tool is None or not tool.mutates:
            return self.vault.call(name, arguments)
        try:
            tried, difference = self._try(name, arguments)
        except OSError as error:
            reason = ": ".join(map(str, filter(None, (error.filename, error.strerror)))) or str(error)
            return {"success": False, "error": NOT_TRIED.format(reason), "code": "IO_ERROR"}
        except VaultError as error:
            return {"success": False, "error": NOT_TRIED.format(error), "code": error.code}
        if not tried["success"]:
            return tried
        if not self.approve(Call(name, arguments), difference):
            return {"success": False, "error": REFUSED, "code": "DECLINED"}
        return self.vault.call(name, arguments)

    def _try(self, name: str, arguments: Any) -> tuple[dict, Difference]:
        """What the call returns and changes in the mirror, which is first made like the vault again."""
        mirror = self.vault.mirror(self._folder, self._seen)
        mirror.state.refresh()
        before = deepcopy(mirror.state.data)
        result = mirror.call(name, arguments)
        return result, since(self._seen, self.vault.tree, mirror.tree, before, mirror.state.data)
