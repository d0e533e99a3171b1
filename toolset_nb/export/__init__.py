"""From a run folder to files that other programs load: merged safetensors, GGUF, and the Hub."""

from toolset_nb.export.gguf import base_gguf, convert, run_gguf
from toolset_nb.export.hub import check_hub, upload
from toolset_nb.export.weights import ExportError, merge, sixteen_bit

__all__ = ["ExportError", "base_gguf", "check_hub", "convert", "merge", "run_gguf", "sixteen_bit", "upload"]
