"""What the tests of the export share."""

import pytest

from toolset_nb.runs import Run


@pytest.fixture
def run():
    run = Run.start("sft", "tiny")
    run.path("adapter", "adapter_model.safetensors").write_bytes(b"weights")
    run.finish()
    return run
