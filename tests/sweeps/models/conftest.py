"""A model with its claim."""

from pathlib import Path

import pytest
from saved_models import save_network

from dpcore.config import Places


@pytest.fixture
def claimed_model(places: Places, tmp_path: Path) -> Path:
    """The folder of a small model with random weights."""
    return save_network(tmp_path / "trial" / "model", places)
