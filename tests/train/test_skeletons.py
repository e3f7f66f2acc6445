"""A trial takes the number and the names of joints from its private data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_coco import hands
from planned_trials import handed

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.data.manifest import DatasetHeader
from dpcore.data.shards import write_shards
from dpcore.data.synthetic import SIZE_PX
from dpcore.errors import BadInput
from dpcore.pose.skeleton import HAND_21
from dpcore.privacy.randomness import SweepKey
from dpcore.train.saved import load_model
from dpcore.train.trainer import run_trial

FLIPPED = {"flip_prob": 0.5, "scale_frac": 0.1}


@pytest.fixture(scope="module")
def hand_places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    root = tmp_path_factory.mktemp("hands")
    for seed, (name, role, count) in enumerate((("private", "PRIVATE", 48), ("public", "PUBLIC", 32), ("validation", "PUBLIC", 16))):
        size = {"height_px": SIZE_PX, "width_px": SIZE_PX}
        header = DatasetHeader(name=name, role=role, protected=False, origin="drawn", skeleton=HAND_21, **size)  # type: ignore[arg-type]
        write_shards(root / name, hands(seed=seed, count=count, skeleton=HAND_21), header=header)
    return Places(data_dir=root, cache_dir=root / "cache")


@pytest.mark.parametrize("method", ["dpsgd", "feature_projected"])
def test_hands_of_21_joints_train_a_few_steps_and_their_model_remembers_them(
    hand_places: Places, make_config: Callable[..., TrialConfig], runtime: RuntimeFlags, tmp_path: Path, method: str
) -> None:
    config = make_config(method, augmentation=FLIPPED, stages__public__augmentation=FLIPPED, evaluation={"flip": True})
    handout = handed(
        config, places=hand_places, key=SweepKey(bytes(32)), trial_id="t", folder=tmp_path / "t", validation=None, metric="pck_torso_20"
    )
    last = list(run_trial(config, runtime, handout))[-1]
    assert 0 <= last.metrics["val/pck_torso_20"] <= 1
    assert "val/pckh_50" not in last.metrics
    saved = load_model(tmp_path / "t")
    assert saved.skeleton == HAND_21
    assert saved.network.parts["head"].to_maps.out_channels == 21
    assert saved.meta["score"] == last.metrics["val/pck_torso_20"]


def test_a_metric_that_the_hands_do_not_have_is_no_number_but_an_error(
    hand_places: Places, make_config: Callable[..., TrialConfig], runtime: RuntimeFlags
) -> None:
    config = make_config("public_only")
    handout = handed(config, places=hand_places, key=None, trial_id="t", folder=None, validation=None)
    with pytest.raises(BadInput, match="PCKh has no mean"):
        list(run_trial(config, runtime, handout))


def test_the_mirror_image_of_a_hand_keeps_its_joints() -> None:
    assert HAND_21.mirrored == tuple(np.arange(21))
