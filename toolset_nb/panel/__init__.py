"""The evaluation panel for notebooks: core ipywidgets only, so that Colab's version 7 and JupyterLab's 8 both show it.

Every tab is a view over functions that work without it: endpoint (servers.preflight), form (evaluation.run), results (the
records), compare (evaluation.comparison), playground (evaluation.agent), export (evaluation.save).
"""

from toolset_nb.panel.session import Session, papermill_command
from toolset_nb.panel.window import panel, show

__all__ = ["Session", "panel", "papermill_command", "show"]
