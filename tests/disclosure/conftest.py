"""A few PUBLIC synthetic people of both domains, and a trial over them whose public model reads poses a little."""

import pytest

from dpcore.config import AttackSettings, Places, RuntimeFlags, TrialConfig
from dpcore.data.synthetic import synth
from dpcore.disclosure.measure import Laboratory

SETTINGS = AttackSettings(steps=60, batch_size=8, test_images=48)


@pytest.fixture(scope="session")
def attack_places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """240 public people and 96 validation people. The private dataset that the config names is not there."""
    root = tmp_path_factory.mktemp("attack")
    synth(root / "data" / "public", "public", count=240, seed=1, role="PUBLIC")
    synth(root / "data" / "validation", "public", count=96, seed=2, role="PUBLIC")
    return Places(data_dir=root / "data", cache_dir=root / "cache")


@pytest.fixture(scope="session")
def attack_config() -> TrialConfig:
    """The public start."""
    return TrialConfig(
        method="public_only",
        data={"private": "nowhere", "public": "public", "validation": "validation", "nominal_examples": 100},
        stages={"public": {"steps": 70, "batch_size": 32, "learning_rate": 6e-3}, "private": {"steps": 1, "expected_batch_size": 1}},
    )


@pytest.fixture(scope="session")
def laboratory(attack_places: Places, attack_config: TrialConfig) -> Laboratory:
    """An attack of a few seconds a split."""
    return Laboratory.open(attack_config, SETTINGS, places=attack_places, runtime=RuntimeFlags())
