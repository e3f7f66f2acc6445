"""COCO's form: joints by their names, people of the right category, head boxes and videos where the file has them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dotted import FIELDS, photograph_with_dot
from imported import import_file

from dpcore.data.shards import ShardSet, open_shards
from dpcore.errors import BadInput
from dpcore.pose.skeleton import COCO_17, MPII_16, mapped


def coco_document(labels: list[int], **changes: Any) -> dict[str, Any]:
    keypoints = [value for index, label in enumerate(labels) for value in (10.0 + index, 20.0, label)]
    person = {"id": 5, "image_id": 1, "keypoints": keypoints, "bbox": [20, 10, 40, 60], "iscrowd": 0, **changes}
    return {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [person]}


def imported_coco(tmp_path: Path, document: Any) -> ShardSet:
    photograph_with_dot(tmp_path / "images")
    (tmp_path / "coco.json").write_text(json.dumps(document))
    import_file("coco", tmp_path / "coco.json", tmp_path / "images", tmp_path / "out", **FIELDS)
    return open_shards(tmp_path / "out")


def test_coco_joints_keep_sides_and_derive_pelvis_and_thorax_from_both_parents() -> None:
    points = np.random.default_rng(0).uniform(0, 50, size=(17, 2))
    labelled = np.ones(17, dtype=bool)
    labelled[COCO_17.index["l_hip"]] = False
    joints, visible = mapped(points, labelled, source=COCO_17, target=MPII_16)
    np.testing.assert_array_equal(joints[MPII_16.index["l_wrist"]], points[COCO_17.index["l_wrist"]])
    np.testing.assert_allclose(joints[MPII_16.index["thorax"]], points[[5, 6]].mean(axis=0))
    names = [name for name, index in MPII_16.index.items() if not visible[index]]
    assert sorted(names) == ["head_top", "l_hip", "pelvis", "upper_neck"]


def test_coco_people_have_no_head_size_and_their_box_is_centred(tmp_path: Path) -> None:
    dataset = imported_coco(tmp_path, coco_document([2] * 17))
    assert np.isnan(dataset.head_size_px).all()
    # box middle (39.5, 39.5), side 60 · 1.25 = 75 px onto 64; r_ankle is COCO's joint 16
    np.testing.assert_allclose(dataset.keypoints[0, 16], (np.array([26.0, 20.0]) - 39.5) * 64 / 75 + 32, rtol=1e-5)


def test_crowds_and_people_with_few_keypoints_are_left_out(tmp_path: Path) -> None:
    for document in (coco_document([2] * 9 + [0] * 8), coco_document([2] * 17, iscrowd=1)):
        with pytest.raises(BadInput, match=r"no record in it, nothing to import.*1 left out: "):
            imported_coco(tmp_path, document)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (coco_document([2] * 17, bbox=[0, 0, 0, 0]), "annotation 0: bbox must be finite and not empty"),
        (coco_document([2] * 17, image_id=9), "annotation 0: image_id 9 is not among"),
        (coco_document([2] * 16), "16 keypoints without names"),
        ({"images": []}, "key 'annotations' is missing"),
        ({"images": [], "annotations": []}, "no record in it"),
    ],
)
def test_wrong_coco_files_are_named(tmp_path: Path, document: Any, said: str) -> None:
    with pytest.raises(BadInput, match=rf"coco\.json.*{said}"):
        imported_coco(tmp_path, document)
