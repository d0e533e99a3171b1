"""Talking to a model that works in a private copy of a sample vault: every call, its result, what changed, and undo."""

import html
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from toolset_nb import evaluation
from toolset_nb.chat import Chat
from toolset_nb.evaluation.agent import Attempt, Turn
from toolset_nb.settings import EvaluateSettings
from toolset_nb.vault import Vault, fixtures
from toolset_nb.vault.snapshots import Difference, diff


class Playground:
    """A chat on a private copy of a sample vault, which can be taken back; `with Playground(..) as play`."""

    def __init__(self, target: str, fixture: str, config: EvaluateSettings):
        self._before: list[tuple[list[dict], Vault]] = []  # conversation and vault before each request
        self._copies = 0
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.original = fixtures.build(fixture, self.folder / "vault 0")
        self.chat = Chat(target, self.original, config)

    def __enter__(self) -> "Playground":
        self._stack.enter_context(self.chat)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, words: str, told: Callable[[Turn], None] = lambda turn: None) -> Attempt:
        """One request; see `Chat.say`."""
        self._before.append((self.chat.messages, self.chat.vault))
        self._copies += 1  # a copy that was taken back stays until the end
        self.chat.vault = self.chat.vault.copy(self.folder / f"vault {self._copies}")
        return self.chat.say(words, told)

    def undo(self) -> bool:
        """Takes the last request back, in the conversation and in the vault; False when there is none."""
        if not self._before:
            return False
        self.chat.messages, self.chat.vault = self._before.pop()
        return True

    def reset(self) -> None:
        """Begins anew with the vault as it was."""
        while self.undo():
            pass

    def changes(self) -> Difference:
        """What is different from the vault as it was at first."""
        return diff(self.original.snapshot(), self.chat.vault.snapshot())

    def tree(self) -> list[str]:
        """The paths of all notes and folders."""
        snapshot = self.chat.vault.snapshot()
        return sorted([*snapshot.files, *(f"{folder}/" for folder in snapshot.folders)])


def playground(session: Any, changed: Callable[[], None]):
    """The tab: choose a target and a vault, talk, look at the notes."""
    import ipywidgets as widgets

    target = widgets.Dropdown(description="model", options=evaluation.target_names(session.config))
    fixture = widgets.Dropdown(description="vault", options=fixtures.names("evaluation"))
    words = widgets.Text(placeholder="what shall the model do?", layout=widgets.Layout(width="70%"))
    talk, notes, note = widgets.HTML(), widgets.HTML(), widgets.HTML()
    open_chat: list[Playground] = []

    def close() -> None:
        while open_chat:
            open_chat.pop().__exit__()

    def begin(_: Any = None) -> None:
        close()
        note.value = "Loading…"
        try:
            play = Playground(target.value or "base", fixture.value, session.config)
            play.__enter__()
            open_chat.append(play)
            note.value = f"{html.escape(play.chat.label)} works on a private copy of {fixture.value}"
        except Exception as error:  # shown: a model that is not there is no reason for a traceback in a tab
            note.value = f"{type(error).__name__}: {html.escape(str(error))}"
        draw_chat()

    def draw_chat() -> None:
        if not open_chat:
            talk.value = notes.value = ""
            return
        play = open_chat[0]
        talk.value = "".join(_bubble(message) for message in play.chat.messages)
        listing = "<br>".join(html.escape(path) for path in play.tree())
        notes.value = (
            f"<b>changes</b>{play.changes()._repr_html_()}<b>notes</b>"
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
