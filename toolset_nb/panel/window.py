"""The panel's tabs. Widgets only: what they do is in `session`."""

import html
from collections.abc import Callable
from typing import Any

from toolset_nb import evaluation, runs
from toolset_nb.errors import ToolsetError
from toolset_nb.evaluation.targets import report_place
from toolset_nb.panel.form import form
from toolset_nb.panel.parts import button, escaped, fault, row
from toolset_nb.panel.playground import playground
from toolset_nb.panel.results import results
from toolset_nb.panel.session import Session
from toolset_nb.servers import kinds
from toolset_nb.servers.preflight import Card, preflight
from toolset_nb.settings import EvaluateSettings, SettingsError
from toolset_nb.training import is_interactive

TABS = ("Endpoint", "Run", "Results", "Compare", "Playground", "Export")


def show(config: EvaluateSettings) -> Session:
    """In a front end the panel, and the session that it fills; elsewhere one that the evaluation of the settings has filled."""
    session = Session(config)
    if is_interactive(config.interactive):
        from IPython.display import display

        display(panel(session))
    else:
        session.add(evaluation.run(config))
    return session


def panel(session: Session):
    """The widget of a session."""
    import ipywidgets as widgets

    pages, refresh = [], []

    def changed() -> None:
        for draw in refresh:
            draw()

    for make in (_endpoint, form, results, _compare, playground, _export):
        page, draw = make(session, changed)
        pages.append(page)
        refresh.append(draw)
    tabs = widgets.Tab(children=pages)
    for number, title in enumerate(TABS):
        tabs.set_title(number, title)
    changed()
    return tabs


def _endpoint(session: Session, changed: Callable[[], None]):
    """Where the models are: own runs, or a server with a card that says whether it is fit."""
    import ipywidgets as widgets

    places = {"own runs": ""} | {kind.title: name for name, kind in kinds().items() if name != "transformers"}
    place = widgets.ToggleButtons(options=list(places), description="", style={"button_width": "auto"})
    url = widgets.Text(description="address", placeholder="http://127.0.0.1:8080", layout=widgets.Layout(width="24em"))
    model = widgets.Dropdown(description="model", options=[])
    status, card = widgets.HTML(), widgets.HTML()

    def chosen() -> str:
        if not places[place.value]:
            return model.value or "base"
        return f"{places[place.value]}+{url.value}#{model.value or ''}"

    def moved(_: Any = None) -> None:
        name = places[place.value]
        url.layout.display = "" if name else "none"
        if name:
            model.options = []
            try:
                url.value = kinds()[name].address(session.config.host, session.config.port)
                status.value = "Press Detect."
            except SettingsError as error:
                status.value = fault(str(error))
        else:
            own = runs.complete_names()
            model.options = ["base", *own]
            model.value = "base"
            told = f"{len(own)} trained models here, served by llama.cpp in this process."
            status.value = f"{told} Targets now: {escaped(session.config.targets)}."
        card.value = ""

    def ask(target: str) -> Card | None:
        status.value = "Asking…"
        try:
            found = preflight(target, session.config, session.prompts())
        except ToolsetError as error:
            card.value, status.value = "", fault(str(error))
            return None
        card.value = found._repr_html_()
        return found

    def detect() -> None:
        if not places[place.value]:
            moved()
        elif found := ask(f"{places[place.value]}+{url.value}"):
            model.options = found.models
            model.value = found.models[0] if found.models else None
            status.value = f"{len(found.models)} models"

    def check() -> None:
        if not places[place.value]:
            status.value = "Own runs need no check: this project serves them itself."
        elif found := ask(chosen()):
            status.value = "ready" if found.ready else "not ready: see the marks"

    def take(add: bool) -> None:
        names = evaluation.target_names(session.config) if add else []
        session.change(targets=",".join([*names, chosen()]))
        status.value = f"targets: {html.escape(session.config.targets)}"
        changed()

    place.observe(moved, "value")
    moved()
    buttons = row(
        button("Detect", detect, "ask the server for its models"),
        button("Check", check, "does it answer, see the tools, have enough context"),
        button("Use it", lambda: take(False), "evaluate this model alone", "primary"),
        button("Add it", lambda: take(True), "evaluate it beside the others"),
    )
    return widgets.VBox([place, row(url, model), buttons, status, card]), lambda: None


def _compare(session: Session, changed: Callable[[], None]):
    """Two to four models side by side, with paired statistics; reports of other runs can be loaded."""
    import ipywidgets as widgets

    path = widgets.Text(placeholder="a run's name, or a report's file or folder", layout=widgets.Layout(width="28em"))
    words, figures, note = widgets.HTML(), widgets.HTML(), widgets.HTML()

    def draw() -> None:
        entries = session.comparable()
        if not entries:
            words.value, figures.value = "Nothing to compare yet.", ""
            return
        words.value = _markdown(evaluation.table(entries) + "\n\n" + evaluation.comparison(entries))
        figures.value = _pictures(entries)

    def load() -> None:
        try:
            place = report_place(path.value.strip(), session.config.prompt_set)
            note.value = f"{session.load(place)} reports loaded"
            changed()
        except ToolsetError as error:
            note.value = escaped(str(error))

    return widgets.VBox([row(path, button("Load", load), note), words, figures]), draw


def _markdown(text: str) -> str:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table").render(text)


def _pictures(entries: list[dict[str, Any]]) -> str:
    """The figures as images that need no file."""
    import base64
    import io

    from toolset_nb.evaluation import plots

    made = []
    for name, figure in plots.figures(entries).items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80)
        data = base64.b64encode(buffer.getvalue()).decode()
        made.append(f'<img alt="{name}" style="max-width:100%" src="data:image/png;base64,{data}">')
    return "".join(made)


def _export(session: Session, changed: Callable[[], None]):
    """All files into a folder, and what goes into a model card."""
    import ipywidgets as widgets

    folder = widgets.Text(placeholder="the run's own folder", description="folder", layout=widgets.Layout(width="28em"))
    note, block = widgets.HTML(), widgets.Textarea(layout=widgets.Layout(width="100%", height="14em"))

    def save() -> None:
        if not session.comparable():
            note.value = "Nothing to export yet."
            return
        path = session.save(folder.value.strip())
        files = ", ".join(sorted(file.name for file in path.parent.iterdir() if file.is_file()))
        note.value = f"In {escaped(str(path.parent))}: {escaped(files)}"
        block.value = (path.parent / "model-index.yaml").read_text("utf-8")

    return widgets.VBox(
        [row(folder, button("Export", save, "Markdown, HTML, JSON, CSV, figures", "primary")), note, block]
    ), lambda: None
