"""Keypoints are written as COCO's results or as a table, whole or not at all."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from dpcore.errors import BadInput, Refused
from sweeps.models.keypoints.boxes import PersonBox
from sweeps.models.keypoints.people import PredictedPeople, PredictedPerson

BOX = PersonBox(left=1.5, top=2.0, width=30.0, height=40.25, score=0.5, image_id=139)
PEOPLE = PredictedPeople(
    joints=("l_eye", "r_eye"),
    people=(
        PredictedPerson(image="ä, b.png", box=BOX, keypoints=np.array([[3.14159, 4.0], [5.5, 6.25]]), scores=np.array([0.9, 0.7])),
        PredictedPerson(image="c.png", box=None, keypoints=np.array([[-1.0, 2.0], [7.0, 8.0]]), scores=np.array([0.25, 0.75])),
    ),
    pictures=2,
    left_out={},
)


def test_json_is_cocos_results() -> None:
    assert json.loads(PEOPLE.to_json()) == [
        {
            "image": "ä, b.png", "category_id": 1, "image_id": 139, "bbox": [1.5, 2.0, 30.0, 40.25],
            "keypoints": [3.142, 4.0, 0.9, 5.5, 6.25, 0.7], "score": 0.4,
        },
        {"image": "c.png", "category_id": 1, "keypoints": [-1.0, 2.0, 0.25, 7.0, 8.0, 0.75], "score": 0.5},
    ]  # fmt: skip


def test_csv_has_one_row_a_person_and_joints_by_name() -> None:
    first, second = csv.DictReader(io.StringIO(PEOPLE.to_csv()))
    assert (first["image"], first["l_eye_x"], first["r_eye_score"], first["box_h"]) == ("ä, b.png", "3.142", "0.7", "40.25")
    assert (second["box_x"], second["r_eye_y"], second["score"]) == ("", "8.0", "0.5")


def test_a_file_is_new_and_its_suffix_says_what_it_is(tmp_path: Path) -> None:
    for name in ("k.json", "k.CSV"):
        PEOPLE.write(tmp_path / name)
        with pytest.raises(Refused, match="exists already"):
            PEOPLE.write(tmp_path / name)
    assert json.loads((tmp_path / "k.json").read_text(encoding="utf-8"))[0]["image"] == "ä, b.png"
    with pytest.raises(BadInput, match=r"ends with \.json or \.csv"):
        PEOPLE.write(tmp_path / "k.txt")
    with pytest.raises(BadInput, match="there is no folder"):
        PEOPLE.write(tmp_path / "none" / "k.json")
