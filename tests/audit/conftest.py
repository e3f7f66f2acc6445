"""Claims to attack: four methods on a problem of eight steps, their noise calibrated once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpcore.audit.canaries import Target
from dpcore.config import RuntimeFlags, TrialConfig, parse_config
from dpcore.privacy import mechanism as mechanism_module
from dpcore.privacy.accounting import plan_privacy
from dpcore.privacy.noise import NoisedSum

METHODS = ("dpsgd", "projected", "feature", "feature_projected")


class Claims:
    """Builds configs and targets."""

    def __init__(self, cache_dir: Path) -> None:
        self.cache_dir = cache_dir

    def config(self, method: str, epsilon: float = 4.0, **changes: Any) -> TrialConfig:
        values: dict[str, Any] = {
            "method": method,
            "data": {"private": "a", "public": "b", "validation": "c", "nominal_examples": 1000},
            "stages": {"private": {"steps": 8, "expected_batch_size": 250}},
            "epsilon": epsilon,
            "delta": 1e-5,
            "clip_norm": 0.3,
        }
        if "feature" in method:
            values |= {"split": {"name": "d", "transform": "downsample", "factor": 2}, "public_weight": 0.7, "private_weight": 0.5}
        if "projected" in method:
            values |= {"subspace": {"rank": 64, "examples": 64}}
        return parse_config(TrialConfig, values).changed(**changes)

    def target(self, config: TrialConfig) -> Target:
        plan = plan_privacy(config, self.cache_dir)
        assert plan is not None
        return Target(config=config, plan=plan, runtime=RuntimeFlags())


@pytest.fixture(scope="session")
def claims(tmp_path_factory: pytest.TempPathFactory) -> Claims:
    return Claims(tmp_path_factory.mktemp("calibrations"))


@pytest.fixture
def scale_noise(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Multiplies the noise of every mechanism by a factor."""
    honest: Callable[..., NoisedSum] = mechanism_module.add_noise

    def scale(factor: float) -> None:
        def scaled(bounded: Any, *, noise_multiplier: float, stream: Any) -> NoisedSum:
            return honest(bounded, noise_multiplier=factor * noise_multiplier, stream=stream)

        monkeypatch.setattr(mechanism_module, "add_noise", scaled)

    return scale
