"""All pictures are found and looked at before the first is used, and what does not read is named."""

from pathlib import Path

import pytest
from PIL import Image

from dpcore.errors import BadInput
from sweeps.models.keypoints.pictures import find_pictures


def test_files_folders_and_patterns_are_found_each_file_once(photos: Path) -> None:
    found = find_pictures([photos, photos / "a.png", f"{photos}/more/*.jpg"])
    assert [picture.name for picture in found.pictures] == [f"{photos}/a.png", f"{photos}/c.PNG", f"{photos}/more/b.jpg"]
    assert found.other_files == 1
    assert [picture.upright_px for picture in found.pictures] == [(131, 97), (64, 64), (90, 171)]


def test_hidden_files_of_a_folder_are_left_alone(photos: Path) -> None:
    (photos / ".thumbnails").mkdir()
    (photos / "a.png").rename(photos / ".thumbnails" / "a.png")
    assert len(find_pictures([photos]).pictures) == 2


def test_what_is_not_there_is_named_all_at_once(photos: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.jpg, none/\*\.png: not there"):
        find_pictures([photos, "nowhere.jpg", "none/*.png"])


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BadInput, match="no picture in"):
        find_pictures([tmp_path])


def test_a_broken_picture_is_named_or_left_out_where_that_is_asked_for(photos: Path) -> None:
    (photos / "d.jpg").write_bytes(b"no picture at all")
    with pytest.raises(BadInput, match=r"1 of 4 pictures cannot be read: .*d\.jpg \(cannot identify image file.*--skip-broken"):
        find_pictures([photos])
    found = find_pictures([photos], skip_broken=True)
    assert (len(found.pictures), len(found.broken)) == (3, 1)


def test_a_picture_turned_by_exif_is_read_as_a_viewer_shows_it(tmp_path: Path) -> None:
    stored = Image.new("RGB", (50, 30))
    stored.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "t.png", exif=exif)
    (picture,) = find_pictures([tmp_path]).pictures
    assert (picture.stored_px, picture.upright_px) == ((50, 30), (30, 50))
    assert picture.load().size == (30, 50)
    assert picture.load().getpixel((29, 0)) == (255, 0, 0)
    assert picture.load((50, 30)).size == (50, 30)
