"""Talking to a model that works in a private copy of a sample vault: every call, its result, what changed, and undo."""

import html
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from toolset_nb import evaluation
from toolset_nb.evaluation.agent import Attempt, Turn, converse
from toolset_nb.evaluation.prompts import offered_tools
from toolset_nb.settings import EvaluateSettings
from toolset_nb.vault import Vault, fixtures
from toolset_nb.vault.snapshots import Difference, diff


class Chat:
    """A conversation with a target on a vault copy; `with Chat(..) as chat`. Not for several threads."""

    def __init__(self, target: str, fixture: str, config: EvaluateSettings):
        self.target, self.fixture, self.config = target, fixture, config
        self.messages: list[dict] = []
        self._copies = 0
        self._before: list[tuple[int, Vault]] = []  # messages and vault before each request, for undo

    def __enter__(self) -> "Chat":
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.label, self.endpoint = self._stack.enter_context(evaluation.open_target(self.target, self.config))
        self.original = self.vault = fixtures.build(self.fixture, self.folder / "vault 0")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, words: str, told: Callable[[Turn], None] = lambda turn: None) -> Attempt:
        """One request and all that the model does about it; the attempt's turns hold calls and results."""
        self._before.append((len(self.messages), self.vault))
        self._copies += 1  # a copy that was taken back stays until the end
        self.vault = self.vault.copy(self.folder / f"vault {self._copies}")
        prompt = {"id": "chat", "question": words, "expected_tools": []}
        if not self.messages:
            self.messages = evaluation.messages(prompt, self.config)[:-1]
        made = Attempt(chat=[*self.messages, {"role": "user", "content": words}])
        converse(made, self.endpoint, self.config, self.vault, tools=offered_tools(prompt, self.config), told=told)
        self.messages = made.chat
        return made

    def undo(self) -> bool:
        """Takes the last request back, in the conversation and in the vault; False when there is none."""
        if not self._before:
            return False
        count, self.vault = self._before.pop()
        self.messages = self.messages[:count]
        return True

    def reset(self) -> None:
        """Begins anew with the vault as it was."""
        while self.undo():
            pass

    def changes(self) -> Difference:
        """What is different from the vault as it was at first."""
        return diff(self.original.snapshot(), self.vault.snapshot())

    def tree(self) -> list[str]:
        """The paths of all notes and folders."""
        snapshot = self.vault.snapshot()
        return sorted([*snapshot.files, *(f"{folder}/" for folder in snapshot.folders)])


def playground(session: Any, changed: Callable[[], None]):
    """The tab: choose a target and a vault, talk, look at the notes."""
    import ipywidgets as widgets

    target = widgets.Dropdown(description="model", options=evaluation.target_names(session.config))
    fixture = widgets.Dropdown(description="vault", options=fixtures.names("evaluation"))
    words = widgets.Text(placeholder="what shall the model do?", layout=widgets.Layout(width="70%"))
    talk, notes, note = widgets.HTML(), widgets.HTML(), widgets.HTML()
    open_chat: list[Chat] = []

    def close() -> None:
        while open_chat:
            open_chat.pop().__exit__()

    def begin(_: Any = None) -> None:
        close()
        note.value = "Loading…"
        try:
            chat = Chat(target.value or "base", fixture.value, session.config)
            chat.__enter__()
            open_chat.append(chat)
            note.value = f"{html.escape(chat.label)} works on a private copy of {fixture.value}"
        except Exception as error:  # shown: a model that is not there is no reason for a traceback in a tab
            note.value = f"{type(error).__name__}: {html.escape(str(error))}"
        draw_chat()

    def draw_chat() -> None:
        if not open_chat:
            talk.value = notes.value = ""
            return
        chat = open_chat[0]
        talk.value = "".join(_bubble(message) for message in chat.messages)
        listing = "<br>".join(html.escape(path) for path in chat.tree())
        notes.value = (
            f"<b>changes</b>{chat.changes()._repr_html_()}<b>notes</b>"
            f'<div style="max-height:16em;overflow:auto;font-family:monospace">{listing}</div>'
        )

    def send() -> None:
        if not words.value.strip():
            return
        if not open_chat:
            begin()
        if open_chat:
            note.value = "Thinking…"
            made = open_chat[0].say(words.value.strip(), lambda turn: draw_chat())
            note.value = html.escape(made.error or f"ended: {made.stop}")
            words.value = ""
            draw_chat()

    def undo() -> None:
        if open_chat and open_chat[0].undo():
            note.value = "taken back"
        draw_chat()

    def reset() -> None:
        if open_chat:
            open_chat[0].reset()
        draw_chat()

    def draw() -> None:
        names = evaluation.target_names(session.config) or ["base"]
        if list(target.options) != names:
            close()
            target.options = names
            draw_chat()

    buttons = []
    for title, act in (("Send", send), ("Undo", undo), ("Reset", reset)):
        button = widgets.Button(description=title, button_style="primary" if title == "Send" else "")
        button.on_click(lambda _, act=act: act())
        buttons.append(button)
    fixture.observe(lambda _: close() or draw_chat(), "value")
    target.observe(lambda _: close() or draw_chat(), "value")
    side = widgets.HBox(
        [
            widgets.VBox([talk], layout=widgets.Layout(width="58%")),
            widgets.VBox([notes], layout=widgets.Layout(width="42%")),
        ]
    )
    return widgets.VBox([widgets.HBox([target, fixture]), widgets.HBox([words, *buttons]), note, side]), draw


def _bubble(message: dict) -> str:
    content = message.get("content") or ""
    for made in message.get("tool_calls", []):
        content += f"\n{made['function']['name']} {made['function']['arguments']}"
    shade = {"user": "#2f6fde22", "assistant": "#0b6e4f22", "tool": "#88888822"}.get(message["role"], "#88888811")
    style = (
        f"background:{shade};border-radius:6px;padding:4px 8px;margin:3px 0;white-space:pre-wrap;"
        "overflow-wrap:anywhere;max-height:16em;overflow:auto;line-height:1.35"
    )
    return f'<div style="{style}"><small>{html.escape(message["role"])}</small><br>{html.escape(content)}</div>'
