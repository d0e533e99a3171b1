"""A vault that executes calls: a real folder of notes plus the plugin's own state.

`Vault.call` takes any name and any arguments, validates them as the plugin's server does, runs the tool and returns the
plugin's result; it never raises, and a call that fails leaves notes and state as they were. Every failure carries a stable
`code` beside the plugin's `error`. Not here: the trained contract of a call (`tools.check` is stricter than the plugin).
"""

import re
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema_rs
from filelock import FileLock

from toolset_nb.tools import CONTEXT_FIELDS, Tool, catalogue
from toolset_nb.vault import (
    agent_manager,
    command_manager,
    content_manager,
    memory_manager,
    vault_librarian,
    vault_manager,
)
from toolset_nb.vault.files import HALF_CHARACTER, Tree, VaultError
from toolset_nb.vault.providers import Simulated
from toolset_nb.vault.snapshots import Snapshot, take
from toolset_nb.vault.state import State

CODES = {
    "required": "MISSING_REQUIRED",
    "type": "TYPE_ERROR",
    "minimum": "MIN_ERROR",
    "maximum": "MAX_ERROR",
    "minLength": "MIN_LENGTH_ERROR",
    "maxLength": "MAX_LENGTH_ERROR",
    "pattern": "PATTERN_ERROR",
    "enum": "ENUM_ERROR",
    "const": "ENUM_ERROR",
    "minItems": "MIN_ITEMS_ERROR",
    "maxItems": "MAX_ITEMS_ERROR",
}
MODULES = (vault_manager, content_manager, vault_librarian, memory_manager, agent_manager, command_manager)
ECHOED = ("path", "newPath", "sourcePath", "targetPath", "query")  # flat tools name these in a failure too
CONTEXT = {
    "type": "object",
    "properties": {field: {"type": "string"} for field in CONTEXT_FIELDS},
    "required": list(CONTEXT_FIELDS),
}
LOCK_SECONDS = 30


class Vault:
    """One vault, used by one thread at a time; several processes may share its folder.

    `clock` gives milliseconds since 1970, `seed` makes the ids repeatable, `provider` stands for the language and image
    models, `private` is for a folder that nobody else uses: no lock, no waiting for the disk.
    """

    def __init__(
        self,
        folder: Path | str,
        clock: Callable[[], int] | None = None,
        seed: int | None = None,
        private: bool = False,
        read_only: bool = False,
        provider: Any = None,
    ):
        self.tree = Tree(folder, not private, read_only)
        self.state = State(self.tree, seed)
        self.clock = clock or (lambda: time.time_ns() // 1_000_000)
        self.real_time = clock is None
        self.provider = provider or Simulated()
        self.read_only = read_only
        self.index = vault_librarian.Index(self.tree)
        self.tools = catalogue().tools
        self.beside: dict[str, Any] = {}  # fields that stand beside `data` in the running call's result
        self._thread = threading.RLock()
        self._lock = nullcontext() if read_only or private else FileLock(self.tree.own / "lock", timeout=LOCK_SECONDS)

    def call(self, name: str, arguments: Any) -> dict:
        """Execute one call; `arguments` with its `context`. Returns the plugin's result, `success` first; never raises."""
        with self._thread:
            try:
                with self._lock:
                    return self._call(name, arguments)
            except OSError as error:
                return _unlocked(error)

    def rehearse(self, name: str, arguments: Any) -> dict:
        """What `call` would return; nothing is kept: no note, no record, no id or tick of the clock used up, no trace."""
        ids = self.state.random.getstate()
        try:
            with self._thread, self._lock:
                return self._call(name, arguments, keep=False)
        except OSError as error:
            return _unlocked(error)
        finally:
            self.state.random.setstate(ids)

    def replay(self, calls: Iterable[tuple[str, Any]]) -> list[dict]:
        """Execute a list of (name, arguments) and return the results."""
        return [self.call(name, arguments) for name, arguments in calls]

    def copy(self, folder: Path | str) -> "Vault":
        """A private copy in a new folder, with the same clock, ids and models."""
        Path(folder).mkdir()
        return self.mirror(folder, {})

    def mirror(self, folder: Path | str, seen: dict[str, tuple[tuple, tuple]]) -> "Vault":
        """The same in a folder that is there, brought up to date: see `Tree.mirror`."""
        with self._thread, self._lock:
            self.tree.mirror(Path(folder), seen)
        clock = None if self.real_time else deepcopy(self.clock)
        copy = Vault(folder, clock, None, True, self.read_only, self.provider)
        copy.state.random.setstate(self.state.random.getstate())
        copy.tree.now = self.tree.now
        return copy

    def snapshot(self) -> Snapshot:
        """Notes and state as they are now."""
        with self._thread, self._lock:
            self.state.refresh()
            return take(self.tree, self.state.data)

    def undelete(self) -> str:
        """Put back what was deleted last and return its path; raises VaultError."""
        with self._thread, self._lock:
            self.state.refresh()
            if not self.state.data["trash"]:
                raise VaultError("NOT_FOUND", "The trash is empty")
            entry = self.state.data["trash"][-1]
            self.tree.move(entry["entry"], entry["path"])
            self.tree.commit()
            del self.state.data["trash"][-1]
            self.state.changed = True
            self.state.save()
            return entry["path"]

    def discard(self, path: str) -> None:
        """Move an entry to the trash, from where `undelete` takes it back."""
        entry = self.tree.trash(path)
        self.state.data["trash"].append({"path": path, "entry": entry, "time": self.tree.now})
        self.state.changed = True

    def _call(self, name: str, arguments: Any, keep: bool = True) -> dict:
        started = time.perf_counter()
        self.tree.now, self.beside = int(self.clock()) if keep else self.tree.now, {}
        tool = self.tools.get(name) if isinstance(name, str) else None
        try:
            if tool is None:
                raise VaultError("UNKNOWN_TOOL", f"Unknown tool: {name!r:.80}")
            if self.read_only and tool.mutates:
                raise VaultError("READ_ONLY", f"{name} would change the vault, which is open for reading only")
            given = validate(tool, arguments)
            self.state.refresh()
            foreign = given.context["sessionId"]
            given.context["sessionId"] = self.state.session(foreign)
            fields = _handlers()[name](self, given)
            if not keep:
                self.tree.rollback()
                self.state.rollback()
            elif not self.read_only:
                self.state.save()
            self.tree.commit()
        except VaultError as error:
            return self._failed(tool, arguments, error, started, keep)
        except OSError as error:
            return self._failed(tool, arguments, VaultError("IO_ERROR", error.strerror or str(error)), started, keep)
        except UnicodeEncodeError:
            return self._failed(tool, arguments, VaultError("INVALID", HALF_CHARACTER), started, keep)
        except Exception as error:  # a model's call must never end the loop that runs it
            return self._failed(
                tool, arguments, VaultError("INTERNAL", f"{type(error).__name__}: {error}"), started, keep
            )
        result = {"success": True, **({"data": fields} if tool.result["enveloped"] else fields), **self.beside}
        if given.context["sessionId"] != foreign:
            advice = f"The session id {foreign!r:.60} is not valid; use {given.context['sessionId']} from now on."
            result["sessionId"] = given.context["sessionId"]
            result["recommendations"] = [*result.get("recommendations", []), {"type": "session", "message": advice}]
        if keep:
            self._trace(tool, given.context, arguments, started, None)
        return result

    def _failed(self, tool: Tool | None, arguments: Any, error: VaultError, started: float, keep: bool) -> dict:
        self.tree.rollback()
        self.state.rollback()
        context = arguments.get("context") if isinstance(arguments, dict) else None
        if keep and tool and isinstance(context, dict) and error.code != "READ_ONLY":
            self._trace(tool, context, arguments, started, str(error))
        echoed = {}
        if tool and not tool.result["enveloped"] and isinstance(arguments, dict):
            echoed = {key: arguments[key] for key in ECHOED if key in tool.result["fields"] and key in arguments}
        return _failure(error) | echoed

    def _trace(self, tool: Tool, context: dict, arguments: dict, started: float, error: str | None) -> None:
        if self.read_only:
            return
        record = {
            "id": self.state.new_id("trace"),
            "timestamp": self.tree.now,
            "tool": tool.name,
            "context": {key: value[:500] for key, value in context.items() if isinstance(value, str)},
            "arguments": {key: _brief(value) for key, value in arguments.items() if key != "context"},
            "success": error is None,
            "error": error,
            "milliseconds": round((time.perf_counter() - started) * 1000) if self.real_time else 0,
        }
        with suppress(OSError):  # the call itself is done; a full disk must not turn it into a failure
            self.state.trace(record)


def validate(tool: Tool, arguments: Any) -> SimpleNamespace:
    """Check a call as the plugin's server does (unknown parameters pass) and fill in defaults; raises VaultError.

    Returns the declared parameters, None where absent and without default, with `context`, `workspaceContext` and the names
    that were `given`.
    """
    if not isinstance(arguments, dict):
        raise VaultError("TYPE_ERROR", f"arguments: expected an object, found {type(arguments).__name__}")
    try:
        errors = list(_validator(tool.name).iter_errors(arguments))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise VaultError("TYPE_ERROR", f"arguments: expected plain JSON values ({str(error)[:80]})") from None
    if errors:
        error = errors[0]
        where = ".".join(str(step) for step in error.instance_path)
        if error.kind.name == "required":
            where = f"{where}.{error.kind.property}".lstrip(".")
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise VaultError(
            CODES.get(error.kind.name, "INVALID"), f"{where or 'arguments'}: {str(error.message)[:200]}{more}"
        )
    properties = tool.parameters["properties"]
    values = {key: arguments.get(key, rule.get("default")) for key, rule in properties.items()}
    context = {field: arguments["context"][field] for field in CONTEXT_FIELDS}
    values |= {"context": context, "workspaceContext": arguments.get("workspaceContext"), "given": set(arguments)}
    return SimpleNamespace(**values)


@cache
def _validator(name: str) -> Any:
    schema = _open(catalogue().tools[name].parameters)
    for rule in ("anyOf", "allOf"):  # "one of these" is the tool's own check, which knows why
        schema.pop(rule, None)
    schema["properties"] = {"context": CONTEXT, **schema["properties"]}
    schema["required"] = ["context", *schema.get("required", [])]
    return jsonschema_rs.Draft202012Validator(schema)


def _open(schema: Any) -> Any:
    """A schema that lets unknown parameters pass."""
    if isinstance(schema, list):
        return [_open(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _open(value) for key, value in schema.items() if not (key == "additionalProperties" and value is False)
    }


@cache
def _handlers() -> dict[str, Callable]:
    """The function of each tool: vaultManager_createFolder is vault_manager.create_folder."""
    modules = {module.__name__.rpartition(".")[2]: module for module in MODULES}
    found: dict[str, Callable] = {"get_tools": get_tools}
    for tool in catalogue().tools.values():
        if tool.name not in found:
            found[tool.name] = getattr(modules[_snake(tool.agent)], _snake(tool.mode))
    return found


def get_tools(vault: Vault, given: SimpleNamespace) -> dict:
    """The schemas of named tools, or an overview of all."""
    known = [vault.tools[name] for name in dict.fromkeys(given.tools) if name in vault.tools]
    if given.tools and not known:
        raise VaultError("NOT_FOUND", "None of the requested tools is known; call get_tools with [] for an overview")
    described = [{"name": tool.name, "description": tool.description, "inputSchema": tool.parameters} for tool in known]
    fields = {"tools": described, "requestedTools": given.tools, "toolCount": len(described)}
    if not given.tools:
        agents = {tool.agent: [] for tool in vault.tools.values() if tool.agent}
        for tool in vault.tools.values():
            if tool.agent:
                agents[tool.agent].append(tool.mode)
        fields["overview"] = agents
    return fields | {"instruction": "Give every call a context object with its seven fields, then the parameters."}


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _brief(value: Any) -> str:
    try:
        return str(value)[:300]
    except (ValueError, RecursionError):  # thousands of digits or of levels
        return "..."


def _unlocked(error: OSError) -> dict:
    """The failure of a call whose vault could not be locked."""
    held = f"another process has held the vault for {LOCK_SECONDS} s"
    return _failure(VaultError("IO_ERROR", held if isinstance(error, TimeoutError) else error.strerror or str(error)))


def _failure(error: VaultError) -> dict:
    return {"success": False, "error": str(error), "code": error.code}
