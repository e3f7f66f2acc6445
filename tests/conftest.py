"""Shared by all tests: one thread each, places of their own, where the research data would be, and which tests share a process."""

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

from dpcore.config import Places

torch.set_num_threads(1)
# How fast examples are drawn is a matter of what else the machine does.
settings.register_profile("loaded", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded")

STARTS_RAY = re.compile(r"\b(run_sweep|resume_sweep|ray_session|ray\.init|ray_start|Cli)\(")
RAY_FIXTURES = {"cli", "ray_head"}
ONE_PROCESS = ("audit", "disclosure")
"""Folders whose tests share something that takes long to make."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Under `pytest -n`: tests that start a Ray run in one process, one after the other, as do those of some folders."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if RAY_FIXTURES.intersection(getattr(item, "fixturenames", ())) or _starts_ray(item.path):
            item.add_marker(pytest.mark.xdist_group("ray"))
        elif folder in ONE_PROCESS:
            item.add_marker(pytest.mark.xdist_group(folder))


@cache
def _starts_ray(path: Path) -> bool:
    return STARTS_RAY.search(path.read_text()) is not None


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A data and a cache directory that no other test sees."""
    return Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of research data beside the repository; skips where it is not there."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("DPSWEEP_SHARED", default)) / "data"
    if not folder.is_dir():
        pytest.skip("the research data (folder shared/data beside the repository) is not there")
    return folder
