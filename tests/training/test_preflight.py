"""Before a download: what training needs against what is here."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from toolset_nb import models, preflight
from toolset_nb.models import Hardware, ModelError
from toolset_nb.paths import repo_root
from toolset_nb.settings import from_yaml

LAPTOP = Hardware("cpu", "CPU", 0.0, 0.0, None, 24.0, 100.0)
T4 = Hardware("cuda", "Tesla T4", 14.6, 14.5, (7, 5), 12.7, 70.0)


@pytest.fixture
def disks(monkeypatch, tmp_path):
    """Free GiB of the disks of runs and cache, to be set; a third entry, `same`, says whether the two are one."""
    free = {"runs": 100.0, "cache": 100.0, "same": False}
    monkeypatch.setenv("TOOLSET_NB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("TOOLSET_NB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("runs", "cache"):
        (tmp_path / name).mkdir()

    def usage(folder):
        return SimpleNamespace(free=free[Path(folder).relative_to(tmp_path).parts[0]] * 2**30)

    def device(folder):
        return 0 if free["same"] else Path(folder).relative_to(tmp_path).parts[0]

    monkeypatch.setattr(preflight.shutil, "disk_usage", usage)
    monkeypatch.setattr(preflight, "_device", device)
    return free


def values(size, method="sft", **more):
    return {**models.sizes()[size][method], **more}


@pytest.mark.parametrize(
    ("method", "given", "took"),
    [  # peaks in GB of whole runs on two cores (memory_gb of their log.jsonl), rows of at most 512 tokens
        ("sft", {"batch_size": 1}, 2.8),
        ("sft", {}, 3.04),
        ("sft", {"lora_rank": 16}, 3.9),
        ("sft", {"lora_rank": 19, "batch_size": 4}, 6.45),
        ("kto", {}, 4.3),
    ],
)
def test_the_estimate_for_tiny_is_near_what_runs_on_two_cores_took(method, given, took):
    need = preflight.estimate("tiny", {**values("tiny"), **values("tiny", method), **given}, LAPTOP, method)
    assert need.ram * 2**30 / 1e9 == pytest.approx(took, rel=0.15)


def test_a_layer_keeps_as_many_values_for_the_backward_pass_as_are_estimated(tiny_model):
    import torch
    from transformers import AutoModelForCausalLM

    model, rows, tokens = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), 2, 64
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    seen = {}

    def keep(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor  # kept, so that no other takes its place
        return tensor

    ids = torch.arange(rows * tokens).reshape(rows, tokens)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=ids)
    kept = sum(t.untyped_storage().nbytes() for place, t in seen.items() if place not in weights) / 4
    config = model.config
    shape = {"ffn": config.intermediate_size, "hidden": config.hidden_size, "heads": config.num_attention_heads}
    estimated = preflight.kept_values(shape | {"head": config.head_dim}) * config.num_hidden_layers * rows * tokens
    assert kept == pytest.approx(estimated, rel=0.15)


def test_trained_parameters_are_those_of_the_adapter():
    shape = models.sizes()["tiny"]["shape"]
    layer = 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536
    assert preflight.trained_parameters(shape, {"lora_rank": 0, "layers": 15}) == 15 * layer
    sums = 2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536)
    assert preflight.trained_parameters(shape, {"lora_rank": 8}) == 30 * 8 * sums


def test_memory_is_saved_where_it_is_short():
    assert [models.lean(size, machine) for size in ("tiny", "7b") for machine in (LAPTOP, T4)] == [
        False,
        False,
        False,
        True,
    ]
    # an H200 took 11.9 GB (batches of 24 rows of 1,024 tokens at most); the estimate counts every row as that long
    need = preflight.estimate("tiny", values("tiny", batch_size=24, max_length=1024), T4)
    assert 11.9e9 / 2**30 < need.gpu < 20


def test_more_rows_longer_rows_and_kto_take_more():
    need = preflight.estimate("7b", values("7b"), T4).gpu
    assert preflight.estimate("7b", values("7b", batch_size=4), T4).gpu > need
    assert preflight.estimate("7b", values("7b", max_length=4096), T4).gpu > need
    assert preflight.estimate("7b", values("7b", lora_rank=64), T4).gpu > need
    assert preflight.estimate("7b", {**values("7b"), **values("7b", "kto")}, T4, "kto").gpu > need


MEMORY = {"colab_t4": 14.5, "kaggle_t4": 14.5, "l4": 22, "rtx3090": 23, "a100": 39, "h200": 139}  # GiB


@pytest.mark.parametrize("name", MEMORY)
def test_what_a_gpus_profile_asks_for_fits_there_in_sft_and_in_kto(name):
    given = from_yaml((repo_root() / "params" / f"{name}.yaml").read_text("utf-8"), name)
    size = given.pop("model_size")
    for method in ("sft", "kto"):
        need = preflight.estimate(size, {**values(size), **values(size, method), **given}, T4, method)
        assert need.gpu < MEMORY[name] and need.ram < 48, method


def test_what_fits_is_shown_and_what_does_not_stops_with_a_remedy(disks, capsys):
    preflight.check("tiny", "", values("tiny"), LAPTOP)
    assert "GPU memory" in capsys.readouterr().out
    with pytest.raises(ModelError, match="RAM: .*lower batch_size"):
        preflight.check("tiny", "", values("tiny"), LAPTOP._replace(ram=1.0))


QWEN = "unsloth/Qwen3-8B-unsloth-bnb-4bit"  # 6.5 GiB to fetch, 1.5 GiB of checkpoints


def test_checkpoints_are_held_against_the_runs_disk_and_the_download_against_the_caches(disks, capsys):
    disks |= {"runs": 2, "cache": 7}
    preflight.check("7b", "", values("7b"), T4)
    assert "runs' disk       1.5     2.0" in capsys.readouterr().out
    disks["runs"] = 1
    with pytest.raises(
        ModelError, match=r"\(runs' disk: 1.5 GiB needed, 1.0 found\): free some, or set .* larger disk"
    ):
        preflight.check("7b", "", values("7b"), T4)
    disks |= {"runs": 2, "cache": 6}
    with pytest.raises(ModelError, match="cache's disk: 6.5 GiB needed, 6.0 found"):
        preflight.check("7b", "", values("7b"), T4)
    disks |= {"same": True, "runs": 7.5, "cache": 7.5}
    with pytest.raises(ModelError, match=r"\(disk: 8.0 GiB needed, 7.5 found"):
        preflight.check("7b", "", values("7b"), T4)


def test_what_is_in_the_cache_already_is_not_asked_for_again(disks, tmp_path):
    disks |= {"same": True, "runs": 3.5, "cache": 3.5}
    with pytest.raises(ModelError, match="disk: 8.0 GiB needed"):
        preflight.check("7b", "", values("7b"), T4)
    blobs = tmp_path / "cache" / f"models--{QWEN.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    with (blobs / "half").open("wb") as file:
        file.truncate(5_000_000_000)  # holes: nothing of it is on the disk
    assert preflight.base_place("7b", QWEN)[1] == pytest.approx(2e9 / 2**30, abs=1e-4)  # folders have a size, too
    preflight.check("7b", "", values("7b"), T4)  # 1.9 of the download and 1.5
    disks |= {"runs": 1.6, "cache": 1.6}
    with (blobs / "whole").open("wb") as file:
        file.truncate(2_000_000_000)
    preflight.check("7b", QWEN, values("7b"), T4)


def test_a_local_base_is_not_downloaded(disks, tmp_path):
    (tmp_path / "models" / Path(QWEN).name).mkdir(parents=True)
    assert preflight.base_place("7b", str(tmp_path / "models" / Path(QWEN).name))[1] == 0
    (tmp_path / "cache" / "models" / "SmolLM2-135M-Instruct").mkdir(parents=True)
    assert preflight.base_place("tiny", "")[1] == 0
    disks |= {"runs": 2, "cache": 0}
    preflight.check("tiny", "", values("tiny"), LAPTOP)


@pytest.mark.parametrize(
    ("built", "capability", "fits"),
    [
        (["sm_75", "sm_80", "sm_86", "sm_90"], (7, 5), True),
        (["sm_75", "sm_80", "sm_86", "sm_90"], (8, 9), True),  # what is built for 8.6 runs on 8.9
        (["sm_75", "sm_80", "sm_86", "sm_90"], (6, 0), False),
        (["sm_75", "sm_80", "sm_86", "sm_90"], (12, 0), False),
        (["sm_90", "compute_90"], (12, 0), True),  # the driver compiles it
        (["sm_90a"], (9, 0), True),
        (["sm_80", "sm_86"], (8, 0), True),
        (["sm_86"], (8, 0), False),
        (["gfx90a"], (9, 0), True),  # AMD's: nothing to compare
        ([], (6, 0), True),
    ],
)
def test_a_gpu_that_torch_was_not_built_for_is_told_before_the_download(monkeypatch, disks, built, capability, fits):
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: built)
    card = T4._replace(name="Some card", capability=capability)
    if fits:
        return preflight.check("7b", "", values("7b"), card)
    monkeypatch.setattr(preflight, "check_access", lambda base: pytest.fail("asked too late"))
    with pytest.raises(
        ModelError, match=f"Some card has compute capability {capability[0]}.{capability[1]}, .* {built[-1]}"
    ):
        preflight.check("7b", "", values("7b"), card)


def test_a_package_of_another_version_is_named(monkeypatch):
    assert preflight.pins().keys() >= {"trl", "transformers", "peft", "unsloth"}
    monkeypatch.setattr(preflight.runs, "version", lambda name: "0.1")
    assert any(line.startswith("trl is 0.1, tested with 1.15.0") for line in preflight.drifted(LAPTOP))
    told = [any("bitsandbytes" in line for line in preflight.drifted(machine)) for machine in (LAPTOP, T4)]
    assert told == [False, True]  # what it is needed for is done on CUDA alone


def test_kto_of_the_embedded_model_is_stopped_too_and_counts_what_its_run_trains(disks, tmp_path):
    base = str(tmp_path / "models" / "SmolLM2-135M-Instruct")  # where a run's record says that it lies
    with pytest.raises(ModelError, match="RAM: .*lower batch_size"):
        preflight.check("tiny", base, values("tiny", "kto"), LAPTOP._replace(ram=1.0), "kto")
    preflight.check("tiny", str(tmp_path / "another"), values("tiny", "kto"), LAPTOP._replace(ram=1.0), "kto")
    whole, small = values("tiny", "kto"), values("tiny", "kto", lora_rank=8, lora_alpha=8)
    need = [preflight.estimate("tiny", given, LAPTOP, "kto").parts["trained"] for given in (whole, small)]
    assert need[1] < need[0] / 10


@pytest.mark.parametrize("status", [None, 401, 429, 500], ids=["no network", "401", "429", "500"])
def test_149_a_hub_that_does_not_answer_is_told_and_the_cache_may_do(monkeypatch, httpserver, capsys, status):
    from huggingface_hub import constants

    place = httpserver.url_for("") if status else "http://127.0.0.1:1"
    httpserver.expect_request("/me/model/resolve/main/config.json").respond_with_data("", status=status or 200)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", place)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place + "/{repo_id}/resolve/{revision}/{filename}")
    preflight.check_access("me/model")
    assert "The Hub does not answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "mlx", "words"), [("kto", None, "KTO is not offered"), ("sft", 1, "with mlx installed")]
)
def test_on_apple_silicon_what_was_never_tried_is_refused(monkeypatch, method, mlx, words):
    monkeypatch.setattr(preflight.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(preflight.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(preflight, "find_spec", lambda name: mlx)
    with pytest.raises(ModelError, match=words):
        preflight.check("tiny", "", values("tiny"), LAPTOP, method)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [(403, "GatedRepo", "licence to be accepted"), (404, "RepoNotFound", "knows no such model")],
)
def test_a_gated_or_unknown_base_is_told_by_one_head_request(monkeypatch, httpserver, status, code, words):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    httpserver.expect_request("/me/model/resolve/main/config.json", method="HEAD").respond_with_data(
        "", status=status, headers={"X-Error-Code": code}
    )
    monkeypatch.setattr(constants, "ENDPOINT", httpserver.url_for(""))
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", httpserver.url_for("") + "/{repo_id}/resolve/{revision}/{filename}"
    )
    with pytest.raises(ModelError, match=words):
        preflight.check_access("me/model")
    assert [request.method for request, _ in httpserver.log if "me/model" in request.path] == ["HEAD"]
