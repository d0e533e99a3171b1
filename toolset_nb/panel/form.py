"""The Run tab: the form, an estimate, start, pause and stop, and the live rate."""

from collections.abc import Callable
from typing import Any

from toolset_nb import evaluation
from toolset_nb.panel.parts import button, escaped, fault, row
from toolset_nb.panel.session import Session, papermill_command
from toolset_nb.runs import RENDERING
from toolset_nb.settings import EvaluateSettings, SettingsError, choices

FORM = [
    "targets",
    "prompt_set",
    "tags",
    "limit",
    "trials",
    "max_turns",
    "temperature",
    "max_tokens",
    "context",
    "tool_exposure",
    "tools_as",
    "constrained",
    "slots",
]


def form(session: Session, changed: Callable[[], None]):
    """The form, an estimate, start, pause and stop, and the live rate."""
    import ipywidgets as widgets

    fields, words = {}, choices(EvaluateSettings)
    for name in FORM:
        value, options = getattr(session.config, name), {"description": name, "style": {"description_width": "8em"}}
        if name == "prompt_set":
            known = evaluation.prompt_sets()
            fields[name] = widgets.Combobox(value=value, options=known, continuous_update=False, **options)
        elif name in RENDERING:  # auto: as the target was trained
            chosen = value if name in session.config.model_fields_set else ""
            fields[name] = widgets.Dropdown(
                value=chosen, options=[("auto", ""), *((w, w) for w in words[name])], **options
            )
        elif name in words:
            fields[name] = widgets.Dropdown(value=value, options=words[name], **options)
        elif isinstance(value, bool):
            fields[name] = widgets.Checkbox(value=value, **options)
        elif isinstance(value, (int, float)):
            kind = widgets.IntText if isinstance(value, int) else widgets.FloatText
            fields[name] = kind(value=value, layout=widgets.Layout(width="16em"), **options)
        else:
            fields[name] = widgets.Text(value=value, continuous_update=False, **options)
    estimate, status, command, log = widgets.HTML(), widgets.HTML(), widgets.HTML(), widgets.HTML()
    bar = widgets.FloatProgress(min=0, max=1, layout=widgets.Layout(width="60%"))
    quiet, wrong = [False], [""]

    def edited(_: Any = None) -> None:
        if quiet[0]:
            return
        wrong[0], command.value = "", ""
        try:
            session.change(**{name: field.value for name, field in fields.items()})
            estimate.value = session.estimate()
            command.value = f"To repeat it without clicking: <code>{escaped(papermill_command(session.config))}</code>"
        except (SettingsError, evaluation.EvaluationError) as error:
            wrong[0] = str(error)
            estimate.value = fault(wrong[0])

    def draw() -> None:
        quiet[0] = True
        fields["targets"].value = session.config.targets
        quiet[0] = False
        edited()

    def progress(now: evaluation.Progress) -> None:
        bar.value = now.done / max(now.total, 1)
        status.value = escaped(str(now))

    def ended() -> None:
        changed()  # first: Start is heard only when the run has really ended
        stopped = session.control and session.control.stopped
        status.value += " · " + (
            escaped(session.error) if session.error else "stopped, Start goes on" if stopped else "done"
        )

    def said(line: str) -> None:
        log.value = escaped(line)

    def start() -> None:
        if wrong[0]:
            status.value = fault(f"not started: {wrong[0]}")
        elif not session.running:
            status.value, bar.value = "Starting…", 0
            session.start(progress, said, ended)

    def pause() -> None:
        if session.running and session.control:
            (session.control.resume if session.control.paused else session.control.pause)()
            status.value += " · paused" if session.control.paused else " · goes on"

    def stop() -> None:
        if session.running and session.control:
            session.control.stop()
            status.value += " · stopping, what is under way is finished"

    for field in fields.values():
        field.observe(edited, "value")
    buttons = row(
        button("Start", start, "what was answered before is not asked again", "success"),
        button("Pause", pause, "press again to go on"),
        button("Stop", stop, "Start goes on where it stopped", "warning"),
    )
    return widgets.VBox([row(*fields.values()), estimate, buttons, bar, status, log, command]), draw
