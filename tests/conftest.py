"""Shared by all tests: one thread each, places of their own, and where the research data would be."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from dpcore.config import Places

torch.set_num_threads(1)


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
