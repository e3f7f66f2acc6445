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
from dpcore.importers.label_checks import ImportTally
from dpcore.pose.skeleton import COCO_17, MPII_16, mapped


def coco_document(labels: list[int], **changes: Any) -> dict[str, Any]:
    keypoints = [value for index, label in enumerate(labels) for value in (10.0 + index, 20.0, label)]
    person = {"id": 5, "image_id": 1, "keypoints": keypoints, "bbox": [20, 10, 40, 60], "iscrowd": 0, **changes}
    return {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [person]}


def imported_coco(tmp_path: Path, document: Any, *, out: str = "out", **options: Any) -> ShardSet:
    photograph_with_dot(tmp_path / "images")
    (tmp_path / "coco.json").write_text(json.dumps(document))
    import_file("coco", tmp_path / "coco.json", tmp_path / "images", tmp_path / out, **FIELDS, **options)
    return open_shards(tmp_path / out)


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


def named_document(names: list[str], **person: Any) -> dict[str, Any]:
    """A document whose one person has its keypoints at (10, 20), (11, 20), ..."""
    document = coco_document([2] * len(names))
    document["categories"] = [{"id": 1, "name": "person", "keypoints": names}]
    document["annotations"][0] |= {"category_id": 1, **person}
    return document


POSETRACK = ["nose", "head_bottom", "head_top", *(f"{side}_{part}" for part in ("ear", "shoulder", "elbow") for side in ("left", "right"))]
POSETRACK += [f"{side}_{part}" for part in ("wrist", "hip", "knee", "ankle") for side in ("left", "right")]


def test_head_boxes_and_videos_of_posetrack_are_read(tmp_path: Path) -> None:
    document = named_document(POSETRACK, bbox_head=[5, 6, 9, 12], iscrowd=False)
    document["images"][0] |= {"vid_id": "003418", "frame_id": 10034180000}
    dataset = imported_coco(tmp_path, document)
    assert (dataset.skeleton.name, dataset.video_ids.tolist()) == ("posetrack_17", ["003418"])
    np.testing.assert_allclose(dataset.head_size_px, [0.6 * 15 * 64 / 75], rtol=1e-6)


def test_a_head_box_of_negative_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="annotation 0: bbox_head must be x, y, width, height"):
        imported_coco(tmp_path, named_document(POSETRACK, bbox_head=[5, 6, -9, 12]))


@pytest.mark.parametrize(("stored", "skeleton"), [(17, "coco_17"), (26, "halpe_26"), (133, "coco_17"), (136, "halpe_26")])
def test_keypoints_without_names_are_known_by_their_number(tmp_path: Path, stored: int, skeleton: str) -> None:
    document = coco_document([2] * stored)
    document["annotations"][0]["bbox"] = [10, 10, 100, 60]
    tally = ImportTally()
    dataset = imported_coco(tmp_path, document, tally=tally)
    assert dataset.skeleton.name == skeleton
    assert tally.noticed[f"category of {stored} keypoints without names: its first {dataset.skeleton.count} are read as {skeleton}"] == 1


def test_keypoints_without_names_need_an_order(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="21 keypoints without names"):
        imported_coco(tmp_path, coco_document([2] * 21))
    with pytest.raises(BadInput, match="17 keypoints without names, mpii_16 has 16"):
        imported_coco(tmp_path, coco_document([2] * 17), order="mpii_16")
    assert imported_coco(tmp_path, coco_document([2] * 21), order="hand_21").skeleton.name == "hand_21"


def test_human_art_and_whole_body_give_their_first_seventeen(tmp_path: Path) -> None:
    more = [*COCO_17.joints, "l_finger", "r_finger", "l_toe", "r_toe"]
    art = named_document(more)
    art["annotations"][0] |= {"keypoints": art["annotations"][0]["keypoints"][:51], "keypoints_21": art["annotations"][0]["keypoints"]}
    assert imported_coco(tmp_path, art).skeleton == COCO_17
    whole = named_document(list(COCO_17.joints), bbox=[10, 10, 100, 60])
    whole["annotations"][0]["keypoints"] = coco_document([2] * 133)["annotations"][0]["keypoints"]
    assert imported_coco(tmp_path, whole, out="whole").skeleton == COCO_17


def test_a_number_of_keypoints_other_than_the_names_is_refused(tmp_path: Path) -> None:
    document = named_document(list(COCO_17.joints[:5]))
    document["annotations"][0]["keypoints"] *= 2
    with pytest.raises(BadInput, match="5 keypoints are named, its people have 10"):
        imported_coco(tmp_path, document)


def test_keypoints_in_threes_are_read_and_other_shapes_are_refused(tmp_path: Path) -> None:
    flat = coco_document([2] * 17)["annotations"][0]["keypoints"]
    nested = [flat[start : start + 3] for start in range(0, 51, 3)]
    dataset = imported_coco(tmp_path, named_document(list(COCO_17.joints), keypoints=nested))
    assert int(dataset.visible.sum()) == 17
    for wrong in ([[1.0, 2.0]] * 17, flat[:-1], ["a"] * 51):
        with pytest.raises(BadInput, match="keypoints must be numbers x, y, visibility"):
            imported_coco(tmp_path, named_document(list(COCO_17.joints), keypoints=wrong), out="wrong")


def test_a_visibility_of_three_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"visibility 3; .*AI Challenger"):
        imported_coco(tmp_path, coco_document([2] * 16 + [3]))


def test_categories_of_other_skeletons_are_chosen_by_name(tmp_path: Path) -> None:
    document = named_document(list(COCO_17.joints))
    document["categories"].append({"id": 2, "name": "Player", "keypoints": list(COCO_17.joints[5:])})
    document["annotations"].append({**document["annotations"][0], "id": 6, "category_id": 2})
    document["annotations"][1]["keypoints"] = document["annotations"][1]["keypoints"][:36]
    with pytest.raises(BadInput, match=r"different skeletons \(coco_17, player_12\)"):
        imported_coco(tmp_path, document)
    assert imported_coco(tmp_path, document, category="Player").skeleton.joints == COCO_17.joints[5:]


def test_a_file_of_boxes_alone_says_which_one_is_needed(tmp_path: Path) -> None:
    document = coco_document([2] * 17)
    del document["annotations"][0]["keypoints"]
    with pytest.raises(BadInput, match=r"no annotation has keypoints; of COCO's own files, person_keypoints_\*"):
        imported_coco(tmp_path, document)


def test_a_persons_box_and_area_are_kept_for_oks(tmp_path: Path) -> None:
    dataset = imported_coco(tmp_path, coco_document([2] * 17, area=345.5))
    assert (dataset.areas_px2.tolist(), dataset.person_boxes_px[0].tolist()) == ([345.5], [20, 10, 60, 70])


@pytest.mark.parametrize("first", [0, 1])
def test_lines_of_a_skeleton_count_from_one_or_from_zero(tmp_path: Path, first: int) -> None:
    document = named_document(["root", "knee", "foot", *(f"toe{n}" for n in range(1, 8))])
    document["categories"][0]["skeleton"] = [[first, 1 + first], [1 + first, 2 + first], [2, 99]]
    assert imported_coco(tmp_path, document).skeleton.lines == (("root", "knee"), ("knee", "foot"))
