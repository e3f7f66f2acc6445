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
from dpcore.train.physical_batch import LARGEST_PROBED, WITHOUT_PROBE, Probe, probed_batch_size, settled_batch_size
from dpcore.train.trainer import run_trial

MB = 10**6


def memory_for(each: int, *, first: int = 0, free: int = 100 * MB) -> Probe:
    """A network whose step needs `first` bytes and `each` for an example, beside what is free. It does not survive a third example."""

    def growth_bytes(count: int) -> int:
        assert count <= 2, "a size was tried out"
        if first + count * each > free:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return first + count * each

    return Probe(growth_bytes=growth_bytes, free_bytes=lambda: free)


def refuse(count: int) -> int:
    raise AssertionError("probed where nothing is to be found out")


NEVER = Probe(growth_bytes=refuse, free_bytes=lambda: refuse(0))


@pytest.mark.parametrize(
    ("each", "first", "settled"),
    [
        (1, 0, LARGEST_PROBED),
        (MB, 0, 32),
        (MB, 17 * MB, 32),
        (MB, 19 * MB, 16),
        (7 * MB, 3 * MB, 4),
        (30 * MB, 0, 1),
        (0, 0, LARGEST_PROBED),
    ],
)
def test_the_size_follows_from_one_and_two_examples_and_leaves_half_of_the_memory_free(each: int, first: int, settled: int) -> None:
    assert probed_batch_size(memory_for(each, first=first)) == settled


def test_a_device_without_room_for_two_examples_says_so() -> None:
    with pytest.raises(Unavailable, match="two examples"):
        probed_batch_size(memory_for(60 * MB))


def test_only_a_gpu_is_probed_and_only_where_nothing_is_asked_or_recorded(tmp_path: Path) -> None:
    gpu = RuntimeFlags(device="cuda")
    assert settled_batch_size(RuntimeFlags(), tmp_path, NEVER) == WITHOUT_PROBE
    assert settled_batch_size(RuntimeFlags(device="cuda", physical_batch_size=48), tmp_path, NEVER) == 48
    assert settled_batch_size(gpu, tmp_path, memory_for(MB)) == 32
    (tmp_path / "trial.json").write_text(json.dumps({"runtime": {"physical_batch_size": 16}}))
    assert settled_batch_size(gpu, tmp_path, NEVER) == 16


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
    def probing(probe: Probe) -> int:
        probe.growth_bytes(2)  # the synthetic step itself runs
        return sizes.pop()

    sizes = [8]
    for name in ("reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: 0)
    monkeypatch.setattr(physical_batch, "probed_batch_size", probing)
    real = physical_batch.settled_batch_size

    def on_a_gpu(runtime: RuntimeFlags, folder: Path | None, probe: Probe) -> int:
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
