"""JPEGs decoded by simplejpeg are pillow's, byte for byte, and what it refuses is left to pillow."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpcore.data import jpeg
from dpcore.data.photographs import load_photograph
from dpcore.errors import BadInput

pytest.importorskip("simplejpeg", reason="the extra `jpeg` is not installed, so pillow decodes")


def photograph(size: tuple[int, int], mode: str) -> Image.Image:
    small = np.random.default_rng(11).integers(0, 255, (size[1] // 5 + 1, size[0] // 5 + 1, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 17), (301, 299)])
def test_pixels_are_pillows(tmp_path: Path, size: tuple[int, int], subsampling: int, progressive: bool, mode: str) -> None:
    path = tmp_path / "a.jpg"
    photograph(size, mode).save(path, quality=83, subsampling=subsampling, progressive=progressive)
    with Image.open(path) as image:
        fast = jpeg.decoded_jpeg(path, image)
        assert fast is not None
        np.testing.assert_array_equal(np.asarray(fast), np.asarray(image.convert("RGB")))


def test_a_research_photograph_is_pillows_too(shared_data: Path) -> None:
    for path in [*sorted((shared_data / "lspet" / "images").glob("*.jpg"))[::300], *(shared_data / "mpii" / "images").glob("*.jpg")]:
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(jpeg.decoded_jpeg(path, image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("installed", [False, True])
def test_a_photograph_is_the_same_with_and_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph((90, 60), "RGB").save(path, quality=90, exif=exif)
    monkeypatch.setattr(jpeg, "_is_installed", lambda: installed)
    seen = load_photograph(path, record="r", labelled_px=(60, 90))
    expected = Image.open(io.BytesIO(path.read_bytes())).convert("RGB").transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(expected))


def test_cmyk_and_other_formats_are_left_to_pillow(tmp_path: Path) -> None:
    photograph((20, 20), "CMYK").save(tmp_path / "a.jpg")
    photograph((20, 20), "RGB").save(tmp_path / "a.png")
    for name in ("a.jpg", "a.png"):
        with Image.open(tmp_path / name) as image:
            assert jpeg.decoded_jpeg(tmp_path / name, image) is None


def test_a_photograph_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photograph((120, 90), "RGB").save(path, quality=90)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(BadInput, match=r"a\.jpg cannot be read \(image file is truncated"):
        load_photograph(path, record="r")
