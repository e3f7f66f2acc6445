"""Programs give pictures as arrays, nested lists, paths or tables; anything else is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dpcore.errors import BadInput
from sweeps.models.keypoints.arrays import pictures_of

ONE = (np.arange(5 * 7 * 3, dtype=np.uint8) * 2).reshape(5, 7, 3)


def pixels(given: Any) -> list[np.ndarray]:
    return [np.asarray(one.picture) for one in pictures_of(given)]


@pytest.mark.parametrize("given", [ONE, ONE[None], [ONE], ONE.tolist(), [ONE.tolist()], ONE.astype(np.int64), {"image": [ONE]}])
def test_one_picture_in_every_form(given: Any) -> None:
    (read,) = pixels(given)
    assert np.array_equal(read, ONE)


def test_a_list_mixes_sizes_and_paths(tmp_path: Path) -> None:
    Image.fromarray(ONE).save(tmp_path / "a.png")
    read = pixels([str(tmp_path / "a.png"), ONE[:3], tmp_path / "a.png"])
    assert [one.shape for one in read] == [(5, 7, 3), (3, 7, 3), (5, 7, 3)]
    assert len(pixels(str(tmp_path / "a.png"))) == 1
    assert len(pixels(np.array([str(tmp_path / "a.png")] * 2))) == 2


def test_a_table_has_boxes_where_it_has_their_columns() -> None:
    table = pd.DataFrame({"image": [ONE, ONE[:4]], "x": [1.5, 2], "y": [0, 1], "w": [3, 4], "h": [5, 2]})
    first, second = pictures_of(table)
    assert first.person is not None
    assert second.person is not None
    assert (first.person.values, second.person.values) == ((1.5, 0, 3, 5), (2, 1, 4, 2))
    assert [one.person for one in pictures_of(pd.DataFrame({"image": [ONE]}))] == [None]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (ONE / 255.0, "given float64"),
        (ONE.astype(np.int64) * 3, "given int64 from 0 to"),
        (ONE[..., :1], r"given the shape \(5, 7, 1\)"),
        (ONE[0], r"given the shape"),
        ([[*ONE.tolist()[:2], [[1, 2, 3]]]], "unlike lengths"),
        ({"picture": [ONE]}, "expected a column image"),
        ({"image": [ONE], "x": [1], "y": [2]}, r"a box needs the columns x, y, w, h, given x, y"),
        ({"image": [ONE], "x": [1], "y": [2], "w": [0], "h": [3]}, "above 0"),
        (["nowhere.png"], "not there"),
    ],
)
def test_what_is_no_picture_is_refused(given: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        pictures_of(given)


def test_no_picture_is_no_picture() -> None:
    assert pictures_of([]) == []
