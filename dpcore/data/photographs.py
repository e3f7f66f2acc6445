"""Finds and reads the photographs that other people's annotation files name.

A photograph has one id, however its name is spelled: the id is a privacy unit, and two ids for one photograph would be two
units for the same people.
"""

from __future__ import annotations

import os
import unicodedata
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from dpcore.data.jpeg import decoded_jpeg
from dpcore.errors import BadInput

LARGEST_PX = 100_000_000
"""Pixels of the largest photograph that is read: a phone's panorama has 60 million, and one of 200 million needs 0.6 GB."""

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"})
"""Endings of pictures' names, in lower case, where a format lists no pictures."""

_ORIENTATION = 0x0112
_UPRIGHT = 1
_TURNED = frozenset({5, 6, 7, 8})
"""EXIF orientations under which width and height change places."""


@dataclass(frozen=True, kw_only=True)
class FoundPhotograph:
    """A photograph in its folder.

    Attributes:
        path: the file.
        image_id: its name from the folder on, with `/`; the same for every spelling and every link.
    """

    path: Path
    image_id: str


class PhotographFolder:
    """The folder below which an annotation file's pictures lie.

    | name in the annotations | what it means |
    |---|---|
    | `sub/a.png`, `./sub/a.png`, `sub\\a.png` | one photograph, `sub/a.png` |
    | a link to another file of the folder | that file |
    | a link to a file elsewhere | one photograph, under the name that came first |
    | composed or decomposed letters (`ö`) | the file that is there |
    | an absolute path, or one that leads out of the folder | refused |
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._shown = root
        self._elsewhere: dict[Path, str] = {}

    def find(self, name: str, *, record: str) -> FoundPhotograph:
        """The photograph of a name.

        Raises:
            BadInput: it is not there, or the name leads out of the folder.
        """
        plain = os.path.normpath(name.replace("\\", "/"))
        if PurePosixPath(plain).is_absolute() or plain[1:2] == ":" or plain == ".." or plain.startswith("../"):
            raise BadInput(f"{record}: image {name} is not below the folder {self._shown}; name pictures from the folder of --images on")
        for form in (plain, unicodedata.normalize("NFC", plain), unicodedata.normalize("NFD", plain)):
            if (self._root / form).is_file():
                return self._identified(form)
        raise BadInput(f"{record}: image {self._shown / plain} is not there; give the folder that holds it with --images")

    def _identified(self, form: str) -> FoundPhotograph:
        path = (self._root / form).resolve()
        if path.is_relative_to(self._root):
            return FoundPhotograph(path=path, image_id=path.relative_to(self._root).as_posix())
        return FoundPhotograph(path=path, image_id=self._elsewhere.setdefault(path, form))


def size_as_seen(path: Path, *, record: str) -> tuple[int, int]:
    """Width and height of a photograph as people see it, turned by its EXIF orientation. Reads its first bytes only.

    Raises:
        BadInput: no image.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning), Image.open(path) as image:
            turned = image.getexif().get(_ORIENTATION, _UPRIGHT) in _TURNED
            return (image.height, image.width) if turned else image.size
    except Image.DecompressionBombError as error:
        raise BadInput(f"{record}: image {path} is too large ({error}); scale it down, and its labels with it") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise BadInput(f"{record}: image {path} cannot be read ({_what(path) or error})") from None


def load_photograph(path: Path, *, record: str, labelled_px: tuple[int, int] | None = None) -> Image.Image:
    """An RGB photograph, as the people who labelled it saw it.

    | file | what comes back |
    |---|---|
    | 16-bit grey | scaled to 8 bits |
    | transparent pixels | black, as beyond the photograph |
    | EXIF orientation, `labelled_px` of the turned picture | turned |
    | EXIF orientation, `labelled_px` of the stored picture alone | as stored |

    Args:
        path: the file.
        record: names the annotation in messages.
        labelled_px: width and height that the annotations state; None where they do not.

    Raises:
        BadInput: no image, too large, of another size than the annotations state, or turned by EXIF while nothing states
            in which frame the labels are.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning), Image.open(path) as image:
            return _as_labelled(image, path, record=record, labelled_px=labelled_px)
    except Image.DecompressionBombError as error:
        raise BadInput(f"{record}: image {path} is too large ({error}); scale it down, and its labels with it") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise BadInput(f"{record}: image {path} cannot be read ({_what(path) or error})") from None


def _what(path: Path) -> str:
    """What a file is that is no image, if one can tell."""
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip()
    except OSError:
        return ""
    kinds = ((b"version https://git-lfs", "a Git LFS pointer: fetch the pictures with `git lfs pull`"), (b"<", "a web page, or XML"))
    return next((kind for begin, kind in kinds if start.startswith(begin)), "" if start else "the file is empty")


def _as_labelled(image: Image.Image, path: Path, *, record: str, labelled_px: tuple[int, int] | None) -> Image.Image:
    if image.width * image.height > LARGEST_PX:
        raise BadInput(f"{record}: image {path} has {image.width} × {image.height} px; scale it down to {LARGEST_PX:,} px, and its labels")
    orientation = image.getexif().get(_ORIENTATION, _UPRIGHT)
    stored = image.size
    turned = stored[::-1] if orientation in _TURNED else stored
    if labelled_px is None and orientation not in (0, _UPRIGHT):
        raise BadInput(
            f"{record}: image {path} is stored turned (EXIF orientation {orientation}), and the annotations do not say in which frame "
            "the labels are; turn the pixels, remove the tag and import again"
        )
    if labelled_px is not None and labelled_px not in (stored, turned):
        raise BadInput(
            f"{record}: image {path} has {turned[0]} × {turned[1]} px, the annotations say {labelled_px[0]} × {labelled_px[1]}; "
            "give the pictures that were labelled"
        )
    decoded = decoded_jpeg(path, image)
    pixels = _as_rgb(image, path, record=record) if decoded is None else decoded
    if labelled_px != turned or orientation in (0, _UPRIGHT):
        return pixels
    method = _TURN[orientation]
    return pixels.transpose(method)


_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _as_rgb(image: Image.Image, path: Path, *, record: str) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise BadInput(f"{record}: image {path} has pixels of mode {image.mode} beyond 16 bits; save it with 8 or 16 bits a channel")
        return Image.fromarray((values / 257.0 + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, (0, 0, 0, 255)), seen).convert("RGB")
    return image.convert("RGB")
