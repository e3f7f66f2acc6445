"""The physical batch size: asked for, recorded, or probed, and never moved after step 0."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from planned_trials import handed

from dpcore.config import Places, RuntimeFlags, TrialConfig, parse_config
from dpcore.errors import BadInput, Unavailable
from dpcore.privacy.randomness import SweepKey
from dpcore.train import physical_batch
from dpcore.train.physical_batch import LARGEST_PROBED, WITHOUT_PROBE, probed_batch_size, settled_batch_size
from dpcore.train.trainer import run_trial


def memory_for(count: int) -> Callable[[int], None]:
    """A device that runs out of memory beyond `count` examples."""

    def probe(size: int) -> None:
        if size > count:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return probe


def never(size: int) -> None:
    raise AssertionError("probed where nothing is to be found out")


@pytest.mark.parametrize(("fits", "settled"), [(10**6, LARGEST_PROBED // 2), (300, 128), (2, 1), (1, 1)])
def test_the_probe_halves_until_it_fits_and_leaves_half_of_that_free(fits: int, settled: int) -> None:
    assert probed_batch_size(memory_for(fits)) == settled


def test_a_device_without_room_for_one_example_says_so() -> None:
    with pytest.raises(Unavailable, match="one example"):
        probed_batch_size(memory_for(0))


def test_only_a_gpu_is_probed_and_only_where_nothing_is_asked_or_recorded(tmp_path: Path) -> None:
    gpu = RuntimeFlags(device="cuda")
    assert settled_batch_size(RuntimeFlags(), tmp_path, never) == WITHOUT_PROBE
    assert settled_batch_size(RuntimeFlags(device="cuda", physical_batch_size=48), tmp_path, never) == 48
    assert settled_batch_size(gpu, tmp_path, memory_for(100)) == 32
    (tmp_path / "trial.json").write_text(json.dumps({"runtime": {"physical_batch_size": 16}}))
    assert settled_batch_size(gpu, tmp_path, never) == 16


def test_a_size_is_a_whole_number_from_one_on_or_auto() -> None:
    for wrong in (0, 1.5, "many"):
        with pytest.raises(BadInput, match="physical_batch_size"):
            parse_config(RuntimeFlags, {"physical_batch_size": wrong})


@pytest.mark.parametrize("method", ["dpsgd", "feature"])
def test_a_probed_size_is_recorded_before_step_0_and_kept_when_another_would_be_probed_later(
    method: str,
    train_places: Places,
    make_config: Callable[..., TrialConfig],
    key: SweepKey,
    trial_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def probing(probe: Callable[[int], None]) -> int:
        probe(3)  # the synthetic step itself runs
        return sizes.pop()

    sizes = [8]
    monkeypatch.setattr(physical_batch, "probed_batch_size", probing)
    real = physical_batch.settled_batch_size

    def on_a_gpu(runtime: RuntimeFlags, folder: Path | None, probe: Callable[[int], None]) -> int:
        return real(runtime.model_copy(update={"device": "cuda"}), folder, probe)

    monkeypatch.setattr("dpcore.train.trainer.settled_batch_size", on_a_gpu)
    config, runtime = make_config(method), RuntimeFlags(report_every_steps=2, checkpoint_every_steps=2)
    first = run_trial(config, runtime, handed(config, places=train_places, trial_id="t", key=key, folder=trial_folder))
    next(first)
    first.close()  # type: ignore[attr-defined]
    assert json.loads((trial_folder / "trial.json").read_text())["runtime"]["physical_batch_size"] == 8
    reports = list(run_trial(config, runtime, handed(config, places=train_places, trial_id="t", key=key, folder=trial_folder)))
    asked = runtime.model_copy(update={"physical_batch_size": 8})
    undisturbed = list(run_trial(config, asked, handed(config, places=train_places, trial_id="t", key=key, folder=None)))
    assert [report.weights_digest for report in reports] == [report.weights_digest for report in undisturbed]
    assert json.loads((trial_folder / "result.json").read_text())["runtime"]["physical_batch_size"] == 8
