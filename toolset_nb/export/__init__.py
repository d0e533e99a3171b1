"""From a run folder to files that other programs load: merged safetensors, GGUF, the Hub with a model card, Google Drive."""

from toolset_nb.export.card import model_card
from toolset_nb.export.drive import copy_to_drive
from toolset_nb.export.gguf import base_gguf, convert, run_gguf
from toolset_nb.export.hub import check_hub, upload, upload_dataset
from toolset_nb.export.weights import ExportError, merge, sixteen_bit

__all__ = [
    "ExportError",
    "base_gguf",
    "check_hub",
    "convert",
    "copy_to_drive",
    "merge",
    "model_card",
    "run_gguf",
    "sixteen_bit",
    "upload",
    "upload_dataset",
]
