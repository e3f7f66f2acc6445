"""A small network with random weights, and pictures of synthetic people larger than its crops."""

from pathlib import Path

import pytest
from PIL import Image
from saved_models import save_network

from dpcore.config import Places
from dpcore.data.synthetic import draw_record


@pytest.fixture
def model(places: Places, tmp_path: Path) -> Path:
    """The folder of a small model with random weights."""
    return save_network(tmp_path / "model", places)


def synthetic_person(index: int, size_px: tuple[int, int]) -> Image.Image:
    """A picture of one person."""
    return Image.fromarray(draw_record("private", seed=3, index=index).image).resize(size_px, Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures of unlike sizes in a folder, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    synthetic_person(0, (131, 97)).save(folder / "a.png")
    synthetic_person(1, (90, 171)).save(folder / "more" / "b.jpg", quality=95)
    synthetic_person(2, (64, 64)).save(folder / "c.PNG")
    (folder / "notes.txt").write_text("no picture")
    return folder
