"""Helpers of the toolset notebooks: data, training, evaluation and export of small tool-calling models.

Nothing is imported here; each module imports what it needs where it needs it.
"""

__version__ = "0.1.0"
