"""What the GPU in use takes in energy, where NVIDIA's library (NVML, package nvidia-ml-py) can be read; else nothing is said.

The figure is the GPU's own, without the rest of the machine. Nothing is estimated here.
"""

import contextlib

from toolset_nb.runs import Run


def joules() -> float | None:
    """Energy that the current CUDA device has taken since its driver was loaded; None where it cannot be read (before Volta).

    Source: nvmlDeviceGetTotalEnergyConsumption, in millijoules.
    """
    with contextlib.suppress(Exception):  # a missing library or counter is never worth a failed run
        import pynvml
        import torch

        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")) / 1000
    return None


def add(run: Run, since: float | None) -> None:
    """Adds what was taken since then to `energy_wh` (watt-hours) of the run's hardware; a resumed run goes on counting."""
    now = joules()
    if since is not None and now is not None:
        hardware = run.record.get("hardware", {})
        run.update(hardware={**hardware, "energy_wh": hardware.get("energy_wh", 0.0) + (now - since) / 3600})
