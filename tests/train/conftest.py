"""Tiny datasets of both domains, and a trial over them that takes a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpcore.config import Places, RuntimeFlags, TrialConfig, parse_config
from dpcore.data.synthetic import synth
from dpcore.privacy.randomness import SweepKey

PIXELATE = {"name": "pixel_8", "transform": "pixelate", "cell_px": 8}


@pytest.fixture(scope="session")
def train_places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """48 public, 64 private (not protected) and 24 validation people, and a cache that all tests of the session share."""
    root = tmp_path_factory.mktemp("train")
    data = root / "data"
    synth(data / "public", "public", count=48, seed=1, role="PUBLIC", name="public")
    synth(data / "private", "private", count=64, seed=2, role="PRIVATE", name="private")
    synth(data / "validation", "private", count=24, seed=3, role="PUBLIC", name="validation")
    return Places(data_dir=data, cache_dir=root / "cache")


@pytest.fixture
def make_config() -> Callable[..., TrialConfig]:
    """A config by method; dotted paths change it."""

    def make(method: str = "dpsgd", **paths: Any) -> TrialConfig:
        values: dict[str, Any] = {
            "method": method,
            "data": {"private": "private", "public": "public", "validation": "validation", "nominal_examples": 64},
            "model": {"freeze": "backbone"},
            "stages": {
                "public": {"steps": 4, "batch_size": 16},
                "private": {"steps": 6, "expected_batch_size": 16},
            },
        }
        if method not in ("public_only", "nonprivate"):
            values |= {"epsilon": 1.0, "delta": 1e-3, "clip_norm": 0.5}
        if method.startswith("feature"):
            values |= {"split": PIXELATE, "public_batch_size": 8}
        if method.endswith("projected"):
            values["subspace"] = {"rank": 4, "examples": 16}
        for path, value in paths.items():
            *parents, leaf = path.split("__")
            node = values
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = value
        return parse_config(TrialConfig, values)

    return make


@pytest.fixture
def runtime() -> RuntimeFlags:
    """Reports and checkpoints every other step."""
    return RuntimeFlags(physical_batch_size=16, report_every_steps=2, checkpoint_every_steps=2)


@pytest.fixture
def key() -> SweepKey:
    """A key that is no secret."""
    return SweepKey(bytes(range(32)))


@pytest.fixture
def trial_folder(tmp_path: Path) -> Path:
    """Where a trial keeps its checkpoints."""
    return tmp_path / "trial"
