"""From a run folder to files that other programs load: merged safetensors, GGUF in several sizes, and the Hub.

formats: what is made, in which order, whether there is room; weights: the merge; lowrank: whole trained layers as a small adapter;
gguf, llamacpp: llama.cpp's converters and quantiser; serving: what LM Studio, Ollama and llama-server need; parity: whether the
formats answer as the adapter does; hub, card, drive: sharing; artefacts: files made whole or not at all; refusals: what the Hub
refuses, in words.
"""

from toolset_nb.export.card import model_card
from toolset_nb.export.drive import copy_to_drive
from toolset_nb.export.formats import chosen, make, plan, run_gguf, table
from toolset_nb.export.gguf import base_gguf
from toolset_nb.export.hub import ask, check_hub, upload, upload_dataset
from toolset_nb.export.lowrank import factor
from toolset_nb.export.weights import ExportError

__all__ = [
    "ExportError",
    "ask",
    "base_gguf",
    "check_hub",
    "chosen",
    "copy_to_drive",
    "factor",
    "make",
    "model_card",
    "plan",
    "run_gguf",
    "table",
    "upload",
    "upload_dataset",
]
