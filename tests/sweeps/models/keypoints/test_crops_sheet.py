"""Contact sheets of crops: labels lie on the crops, and protected people are drawn only where that is asked for."""

import json
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpcore.config import Places
from dpcore.data.manifest import DatasetHeader, Record
from dpcore.data.shards import ShardSet, open_shards, write_shards
from dpcore.errors import BadInput, Refused
from dpcore.pose.skeleton import MPII_16
from sweeps.api.datasets import draw_crops
from sweeps.cli import main
from sweeps.models.keypoints.crops_sheet import CELL_PX, draw_sheet, labelled_crop
from sweeps.models.keypoints.drawing import LEFT


def people(folder: Path, *, role: str = "PUBLIC", protected: bool = False, count: int = 3) -> ShardSet:
    header = DatasetHeader(name="people", role=role, protected=protected, height_px=48, width_px=32, origin="a test")
    generator = np.random.default_rng(5)
    records = []
    for row in range(count):
        image = generator.integers(0, 90, (48, 32, 3), dtype=np.uint8)
        keypoints = generator.uniform(4, 28, (16, 2))
        visible = np.ones(16, dtype=bool)
        visible[3] = False
        records.append(
            Record(
                image=image, keypoints=keypoints, visible=visible, head_size_px=5.5, person_id=f"p{row}", image_id=f"i{row}", video_id="",
                source_id=f"row {row}",
            )
        )  # fmt: skip
    write_shards(folder, records, header=header)
    return open_shards(folder)


def test_a_labelled_joint_is_painted_where_it_is_and_others_are_not(tmp_path: Path) -> None:
    dataset = people(tmp_path / "d")
    picture = np.asarray(labelled_crop(dataset, 0))
    assert picture.shape == (CELL_PX, round(32 * CELL_PX / 48), 3)
    scale = CELL_PX / 48
    x, y = np.rint((dataset.keypoints[0, MPII_16.index["l_ankle"]] + 0.5) * scale - 0.5).astype(int)
    assert picture[y, x].tolist() == list(LEFT)
    only = np.zeros(16, dtype=bool)
    blank = replace_labels(dataset, only)
    assert np.abs(np.asarray(labelled_crop(blank, 0)).astype(int)).max() < 130  # nothing is drawn on a dark crop


def replace_labels(dataset: ShardSet, visible: np.ndarray) -> ShardSet:
    dataset.visible = np.repeat(visible[None], len(dataset), axis=0)
    return dataset


def test_a_sheet_shows_the_first_crops_in_rows(tmp_path: Path) -> None:
    sheet = draw_sheet(people(tmp_path / "d", count=8), labelled_crop)
    width = round(32 * CELL_PX / 48)
    assert sheet.size == (6 * (width + 4) + 4, 2 * (CELL_PX + 4) + 4 + 26)


def test_public_people_are_drawn_into_the_cache_which_a_purge_empties(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    people(places.data_dir / "d")
    where = ["--data-dir", str(places.data_dir), "--cache-dir", str(places.cache_dir)]
    assert main(["data", "info", "d", "--json", *where]) == 0
    sheet = Path(json.loads(capsys.readouterr().out)["sheet"])
    assert sheet.is_relative_to(places.cache_dir)
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
    assert main(["data", "purge", "d", *where]) == 0
    assert not sheet.exists()


def test_protected_people_are_drawn_only_into_a_file_that_was_named_for_it(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    people(places.data_dir / "d", role="PRIVATE", protected=True)
    where = ["--data-dir", str(places.data_dir), "--cache-dir", str(places.cache_dir)]
    assert main(["data", "info", "d", *where]) == 0
    assert "not drawn: these people are protected" in capsys.readouterr().out
    sheet = places.data_dir / "look.png"
    with pytest.raises(Refused, match="is protected: its pictures are not drawn"):
        draw_crops("d", places, sheet=sheet)
    with pytest.raises(BadInput, match="--show-private needs --sheet"):
        draw_crops("d", places, show_private=True)
    assert list(places.data_dir.parent.rglob("*.png")) == []
    assert draw_crops("d", places, sheet=sheet, show_private=True) == sheet
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600


def test_a_stand_ins_sheet_is_readable_by_its_owner_alone(places: Places) -> None:
    people(places.data_dir / "d", role="PRIVATE")
    sheet = draw_crops("d", places)
    assert sheet is not None
    assert (stat.S_IMODE(sheet.stat().st_mode), stat.S_IMODE(sheet.parent.stat().st_mode)) == (0o600, 0o700)


def test_a_sheet_is_a_png(places: Places) -> None:
    people(places.data_dir / "d")
    with pytest.raises(BadInput, match=r"give a name that ends in \.png"):
        draw_crops("d", places, sheet=places.data_dir / "look.jpg")


def test_a_preview_shows_labels_and_what_is_public_under_each_split(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = people(places.data_dir / "d")
    out = places.data_dir.parent / "preview"
    where = ["--data-dir", str(places.data_dir), "--cache-dir", str(places.cache_dir)]
    assert main(["data", "preview", "d", "--out", str(out), *where]) == 0
    said = capsys.readouterr().out
    assert "background_8" in said
    names = {path.name for path in out.iterdir()}
    assert {"labels.png", "split-blur_3.png", "split-pixels_8.png"} <= names
    with Image.open(out / "split-pixels_8.png") as picture:
        first = np.asarray(picture)[30 + 2 : 30 + 2 + CELL_PX // 6 - 4, 8 : 8 + CELL_PX // 6 - 8]
    crop = dataset.images(np.array([0]))[0]
    assert np.ptp(first.reshape(-1, 3), axis=0).max() < np.ptp(crop[:8, :8].reshape(-1, 3), axis=0).min()  # one cell of 8 × 8 px
    assert not (places.cache_dir / "views").exists()
    assert main(["data", "preview", "d", "--out", str(out), *where]) == 2


def test_a_preview_shows_the_splits_of_a_space(places: Places) -> None:
    people(places.data_dir / "d", role="PRIVATE")
    out = places.data_dir.parent / "preview"
    assert main(["data", "preview", "d", "--out", str(out), "--space", "quick", "--data-dir", str(places.data_dir)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["labels.png", "split-blur_3.png"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


def test_a_preview_of_protected_people_is_asked_for(places: Places) -> None:
    people(places.data_dir / "d", role="PRIVATE", protected=True)
    out = places.data_dir.parent / "preview"
    call = ["data", "preview", "d", "--out", str(out), "--space", "quick", "--data-dir", str(places.data_dir)]
    assert main(call) == 2
    assert not out.exists()
    assert main([*call, "--show-private"]) == 0
