"""Real commands on small synthetic data: what a user types, run as a process of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from e2e_support import Cli, make_small_data


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The command line over 200 private, 100 public and 40 validation people."""
    made = Cli(tmp_path_factory.mktemp("data"))
    make_small_data(made)
    return made


@pytest.fixture
def write_space(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a space file and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return path

    return write
