"""Energy is read from the GPU in use or not told at all. NVML and CUDA are stand-ins: there is no GPU here."""

import sys
from types import SimpleNamespace

import pytest

from toolset_nb import energy
from toolset_nb.runs import Run


@pytest.fixture
def counter(monkeypatch):
    """NVML's counter in millijoules, for the device that CUDA calls current."""
    counter = SimpleNamespace(millijoules=5_000_000, error=None)

    def read(handle):
        assert handle == "handle of GPU-6ba7"
        if counter.error:
            raise counter.error
        return counter.millijoules

    library = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: f"handle of {uuid}",
        nvmlDeviceGetTotalEnergyConsumption=read,
    )
    cuda = SimpleNamespace(current_device=lambda: 1, get_device_properties={1: SimpleNamespace(uuid="6ba7")}.get)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    return counter


def test_a_run_records_watt_hours_and_goes_on_counting_when_resumed(counter):
    run = Run.start("sft", "7b", hardware={"name": "NVIDIA L4"})
    for _ in range(2):
        since = energy.joules()
        counter.millijoules += 36_000_000  # 10 Wh
        energy.add(run, since)
    assert run.record["hardware"] == {"name": "NVIDIA L4", "energy_wh": 20.0}


def test_where_it_cannot_be_read_nothing_is_told(counter, monkeypatch):
    run = Run.start("sft", "tiny", hardware={"name": "CPU"})
    counter.error = RuntimeError("Not Supported")
    energy.add(run, energy.joules())
    monkeypatch.setitem(sys.modules, "pynvml", None)
    energy.add(run, energy.joules())
    counter.error = None
    energy.add(run, since=None)
    assert run.record["hardware"] == {"name": "CPU"}
