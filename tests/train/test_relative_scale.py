"""`scale: relative`: each tensor in units of its size at the public start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from planned_trials import handed

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.data.synthetic import synth
from dpcore.privacy.per_example import GradientEngine
from dpcore.privacy.randomness import SweepKey
from dpcore.train import trainer
from dpcore.train.stages import public_network
from dpcore.train.trainer import Report, run_trial
from dpcore.train.trial_data import open_trial_data

Make = Callable[..., TrialConfig]
RELATIVE = {"optimizer__scale": "relative", "model__freeze": "none"}


@pytest.fixture
def scales(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The scales of every engine that a trial makes."""
    seen: list[Any] = []

    def made(*given: Any, **named: Any) -> GradientEngine:
        seen.append(named["scales"])
        return GradientEngine(*given, **named)

    monkeypatch.setattr(trainer, "GradientEngine", made)
    return seen


def _run(config: TrialConfig, runtime: RuntimeFlags, places: Places, key: SweepKey, folder: Path | None = None) -> list[Report]:
    return list(run_trial(config, runtime, handed(config, places=places, trial_id="t", key=key, folder=folder)))


def test_no_private_record_moves_the_scales(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, scales: list[Any]
) -> None:
    others = train_places.data_dir / "others"
    if not others.exists():
        synth(others, "private", count=64, seed=9, role="PRIVATE", name="others")
    for private in ("private", "others"):
        _run(make_config("dpsgd", data__private=private, stages__private__steps=1, **RELATIVE), runtime, train_places, key)
    assert scales[0] == scales[1]
    assert len(set(scales[0])) > 2


@pytest.mark.parametrize("method", ["dpsgd", "feature_projected"])
def test_a_resumed_trial_has_the_scales_of_its_start_and_equals_the_undisturbed_one(
    method: str, train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, tmp_path: Path, scales: list[Any]
) -> None:
    config = make_config(method, optimizer__dp_bias_correction=True, **RELATIVE)
    whole = _run(config, runtime, train_places, key)
    handout = handed(config, places=train_places, trial_id="t", key=key, folder=tmp_path / "trial")
    begun = run_trial(config, runtime, handout)
    next(begun), next(begun)
    begun.close()  # type: ignore[attr-defined]
    resumed = list(run_trial(config, runtime, handout))
    assert [report.weights_digest for report in resumed] == [report.weights_digest for report in whole]
    assert scales[0] == scales[1] == scales[2]


def test_one_step_of_adam_moves_every_tensor_by_a_like_share_of_itself(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey, tmp_path: Path
) -> None:
    """Adam's first step is the learning rate in each coordinate: of the weight's own size here."""
    config = make_config("dpsgd", stages__private__steps=1, optimizer__learning_rate=0.01, **RELATIVE)
    data = open_trial_data(config, train_places, runtime)
    before = public_network(config, data.public, places=train_places, runtime=runtime).state_dict()
    _run(config, runtime, train_places, key, tmp_path / "trial")
    after = trainer_model(tmp_path / "trial")
    for name, tensor in before.items():
        size = float(tensor.square().mean().sqrt())
        moved = float((after[name] - tensor).abs().median())
        if size > 0:
            assert 0.007 <= moved / size <= 0.0143, name


def trainer_model(folder: Path) -> dict[str, torch.Tensor]:
    from dpcore.train.saved import load_model

    return dict(load_model(folder).network.state_dict())


def test_a_public_stage_trains_in_relative_units_where_it_says_so(train_places: Places, make_config: Make, runtime: RuntimeFlags) -> None:
    stage = {"stages__public__steps": 1, "stages__public__learning_rate": 0.01}
    start = make_config("public_only", stages__public__steps=0)
    moved = make_config("public_only", stages__public__scale="relative", **stage)
    data = open_trial_data(start, train_places, runtime)
    before, after, absolute = (
        public_network(config, data.public, places=train_places, runtime=runtime).state_dict()
        for config in (start, moved, make_config("public_only", **stage))
    )
    name = "parts.early.stride2.conv.weight"
    size = float(before[name].square().mean().sqrt())
    assert 0.007 <= float((after[name] - before[name]).abs().median()) / size <= 0.0143
    assert float((absolute[name] - before[name]).abs().median()) == pytest.approx(0.01, rel=0.01)
