"""A trial's part of a GPU: what is decided, on a GPU that is made up; and on a real one where there is one."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import spaces
from fake_trials import ENVELOPE

from dpcore.config import Places
from dpcore.errors import Unavailable
from dpcore.privacy.randomness import SweepKey
from sweeps.engine.searcher import assignment
from sweeps.engine.trainable import TrialTrainable
from sweeps.ray_runtime import gpu_memory
from sweeps.ray_runtime.gpu_memory import GIB, CudaMemory, make_room
from sweeps.records.results import TrialRecord
from sweeps.records.spec import SweepSpec


@dataclass
class Device:
    """A GPU of 16 GiB; `free` are the answers to come, the last one again and again."""

    free: list[float]
    told: list[str] = field(default_factory=list)

    def give_back(self) -> None:
        self.told.append("give back")

    def cap(self, fraction: float) -> None:
        self.told.append(f"cap {fraction:g}")

    def free_and_total(self) -> tuple[int, int]:
        self.told.append("ask")
        return int((self.free.pop(0) if len(self.free) > 1 else self.free[0]) * GIB), 16 * GIB

    def held_by(self) -> str:
        return "process 7 uses 9000 MB"


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def waited_for(device: Device, gpus: float) -> float:
    clock = Clock()
    make_room(device, gpus, within_s=60, clock=clock, sleep=clock.sleep)
    return clock.now


def test_what_the_last_trial_left_is_given_back_before_the_worker_is_capped_and_asks() -> None:
    device = Device(free=[16])
    assert waited_for(device, 0.5) == 0
    assert device.told == ["give back", "cap 0.5", "ask"]


@pytest.mark.parametrize(("gpus", "needed"), [(0.25, 3.6), (0.5, 7.2), (1.0, 14.4), (2.0, 14.4)])
def test_nine_tenths_of_a_trials_part_must_be_free(gpus: float, needed: float) -> None:
    assert waited_for(Device(free=[needed + 0.01]), gpus) == 0
    assert waited_for(Device(free=[needed - 0.01, needed + 0.01]), gpus) == gpu_memory.ASK_EVERY_S


def test_memory_of_a_dead_worker_is_waited_for() -> None:
    assert waited_for(Device(free=[1.0] * 20 + [12.0]), 0.5) == 10


def test_memory_that_does_not_become_free_is_named_with_who_holds_it() -> None:
    with pytest.raises(Unavailable, match=r"0\.5 of a GPU of 16\.0 GiB.* 60 s 5\.0 GiB are free where 7\.2 GiB .*process 7 uses 9000 MB"):
        waited_for(Device(free=[5.0]), 0.5)


@pytest.mark.parametrize(("device", "asked"), [("cpu", []), ("cuda", [0.5, 0.5])])
def test_a_worker_makes_room_before_each_trial_on_a_gpu_and_never_on_a_cpu(
    device: str, asked: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[float] = []
    monkeypatch.setattr("sweeps.engine.trainable.make_room", lambda memory, gpus: found.append(gpus))
    places = Places(data_dir=tmp_path, cache_dir=tmp_path)
    spec = SweepSpec(name="s", space=spaces.space(), places=places, storage=tmp_path, trial_function="fake_trials:run_trial")
    config = spec.space.trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.1})
    record = TrialRecord(trial_id="e0.5-000", role="search", number=0, epsilon=0.5, config=config)
    trial = assignment(spec, record, folder=spec.checkpoint_dir(record.trial_id), validation=None).encode(ENVELOPE)
    worker = object.__new__(TrialTrainable)
    worker.setup(trial, key=SweepKey.fresh(), envelope=ENVELOPE, runtime={"device": device}, gpus=0.5)
    worker.step()
    worker.reset_config(trial)
    worker.step()
    assert found == asked


@pytest.mark.gpu
def test_on_a_gpu_a_worker_cannot_take_more_than_its_part_and_leaves_nothing_behind() -> None:
    import torch

    memory = CudaMemory()
    free, total = memory.free_and_total()
    try:
        make_room(memory, 0.25)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(int(0.3 * total), dtype=torch.uint8, device="cuda")
        held = torch.empty(int(0.2 * total), dtype=torch.uint8, device="cuda")
        with pytest.raises(Unavailable, match="of a GPU"):
            make_room(memory, 1.0, within_s=0)
        del held
        make_room(memory, 0.25)
        assert memory.free_and_total()[0] >= free - 0.05 * total
        assert memory.held_by()
    finally:
        memory.cap(1.0)
