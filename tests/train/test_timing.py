"""Steps are timed on PUBLIC people alone, and leave nothing behind that a trial would take for its own."""

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.data.shards import ShardSet
from dpcore.train.timing import time_steps

Make = Callable[..., TrialConfig]


@pytest.mark.parametrize("method", ["dpsgd", "feature_projected"])
def test_every_part_of_a_trial_takes_time_and_no_private_picture_is_read(
    method: str, train_places: Places, make_config: Make, runtime: RuntimeFlags, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, images = set[str](), ShardSet.images

    def remembered(self: ShardSet, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        read.add(self.manifest.role)
        return images(self, indices)

    monkeypatch.setattr(ShardSet, "images", remembered)
    stages = {path.name for path in (train_places.cache_dir / "stages").glob("*")}
    times = time_steps(make_config(method, stages__public_view={"steps": 5, "batch_size": 16}), runtime, train_places)
    untimed = {"view_step_s"} if method == "dpsgd" else set()
    assert {name for name, seconds in asdict(times).items() if seconds == 0.0} == untimed
    assert read == {"PUBLIC"}
    assert {path.name for path in (train_places.cache_dir / "stages").glob("*")} == stages


def test_a_batch_that_is_larger_than_the_public_people_is_scaled_up(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr("dpcore.train.timing.time", type("Clock", (), {"monotonic": staticmethod(lambda: float(next(ticks)))}))
    small = make_config("dpsgd", data__nominal_examples=480, stages__private={"steps": 6, "expected_batch_size": 48})
    large = make_config("dpsgd", data__nominal_examples=480, stages__private={"steps": 6, "expected_batch_size": 240})
    once, five = (time_steps(config, runtime, train_places).private_step_s for config in (small, large))
    assert five == pytest.approx(5 * once)  # 48 PUBLIC people


def test_a_trial_without_private_steps_has_none_to_time(train_places: Places, make_config: Make, runtime: RuntimeFlags) -> None:
    times = time_steps(make_config("public_only"), runtime, train_places)
    assert replace(times, private_step_s=0.0) == times
