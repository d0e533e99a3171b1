"""Small pieces that every tab uses."""

import html
from collections.abc import Callable
from typing import Any


def row(*parts: Any):
    """Widgets side by side, in several lines where there is no room."""
    import ipywidgets as widgets

    return widgets.HBox(list(parts), layout=widgets.Layout(flex_flow="row wrap"))


def button(title: str, act: Callable[[], None], tip: str = "", style: str = ""):
    """A button that calls `act`."""
    import ipywidgets as widgets

    made = widgets.Button(description=title, tooltip=tip, button_style=style)
    made.on_click(lambda _: act())
    return made


def escaped(words: str) -> str:
    """Words as HTML: escaped, since models and servers write anything."""
    return html.escape(words).replace("\n", "<br>")


def fault(words: str) -> str:
    """The same in the colour of a fault."""
    return f'<span style="color:#a4133c">{escaped(words)}</span>'
