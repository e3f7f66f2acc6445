"""MPII's own MATLAB file: joints, head boxes, videos and who is left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imported import import_file
from painted import DERIVED, PLACES, misplaced, painted_person
from scipy.io import savemat

from dpcore.data.shards import ShardSet, open_shards
from dpcore.errors import BadInput
from dpcore.importers.label_checks import ImportTally
from dpcore.pose.skeleton import MPII_16

EMPTY = np.zeros((0, 0))


def struct(**fields: Any) -> Any:
    """A MATLAB struct, as savemat takes it."""
    return np.array([[tuple(fields.values())]], dtype=[(name, object) for name in fields])


def points(*joints: str) -> Any:
    """Annotation points of the painted person, 1-based."""
    rows = [(PLACES | DERIVED)[name] for name in joints]
    values = [tuple(np.array([[v]]) for v in (x + 1, y + 1, MPII_16.index[n], 0)) for n, (x, y) in zip(joints, rows, strict=True)]
    return np.array(values, dtype=[(name, object) for name in ("x", "y", "id", "is_visible")])[None]


def rect(*joints: str, **changes: Any) -> Any:
    head = {name: np.array([[value]]) for name, value in zip(("x1", "y1", "x2", "y2"), (105, 28, 136, 86), strict=True)}
    given = points(*(joints or MPII_16.joints))
    person = {"annopoints": struct(point=given), "scale": np.array([[1.4]]), "objpos": struct(x=np.array([[121]]), y=np.array([[159]]))}
    return struct(**{**head, **person, **changes})


def image(name: str, *rects: Any, video: int | None = None) -> Any:
    people = np.concatenate(rects, axis=1) if rects else EMPTY
    return struct(
        image=struct(name=name), annorect=people, frame_sec=EMPTY, vididx=EMPTY if video is None else np.array([[video]], dtype=float)
    )


def release(tmp_path: Path, images: list[Any], train: list[int], single: list[list[int]]) -> Path:
    alone = np.empty((len(single), 1), dtype=object)
    for row, numbers in enumerate(single):
        alone[row, 0] = np.array([numbers], dtype=float).T if numbers else EMPTY
    videos = np.empty((1, 2), dtype=object)
    videos[0] = ["aBcD-1", "eFgH_2"]
    annolist = np.concatenate(images, axis=1)
    path = tmp_path / "mpii_human_pose_v1_u12_1.mat"
    whole = struct(annolist=annolist, img_train=np.array([train]), version="12", single_person=alone, video_list=videos)
    savemat(path, {"RELEASE": whole})
    return path


def imported(tmp_path: Path, path: Path, **options: Any) -> ShardSet:
    (tmp_path / "images").mkdir(exist_ok=True)
    for name in ("a.png", "b.png", "c.png"):
        painted_person().save(tmp_path / "images" / name)
    import_file("mpii", path, tmp_path / "images", tmp_path / "out", **options)
    return open_shards(tmp_path / "out")


def test_joints_lie_on_their_pixels_and_head_sizes_come_from_the_head_box(tmp_path: Path) -> None:
    dataset = imported(tmp_path, release(tmp_path, [image("a.png", rect(), video=2)], [1], [[1]]))
    assert (misplaced(dataset), dataset.visible.sum(), dataset.skeleton) == ([], 16, MPII_16)
    assert dataset.video_ids.tolist() == ["eFgH_2"]
    zoom = 192 / (1.4 * 200 * 1.25)
    np.testing.assert_allclose(dataset.head_size_px, [0.6 * np.hypot(31, 58) * zoom], rtol=1e-6)
    centre = dataset.places[0, :2]
    np.testing.assert_allclose(centre, [120, 158 + 15 * 1.4])  # HRNet's shift


def test_a_joint_without_a_point_is_not_labelled_and_a_hidden_one_is(tmp_path: Path) -> None:
    joints = tuple(name for name in MPII_16.joints if name not in ("l_ankle", "pelvis"))
    dataset = imported(tmp_path, release(tmp_path, [image("a.png", rect(*joints))], [1], [[1]]))
    assert [MPII_16.joints[place] for place in np.flatnonzero(~dataset.visible[0])] == ["l_ankle", "pelvis"]
    assert dataset.video_ids.tolist() == [""]


def test_test_images_people_without_joints_and_people_close_to_others_are_left_out_and_counted(tmp_path: Path) -> None:
    bare = rect(annopoints=EMPTY)
    images = [
        image("a.png", rect(), bare),
        image("b.png", rect()),
        image("c.png", rect(), rect(scale=np.array([[1.5]]))),
        image("none.png"),
    ]
    path = release(tmp_path, images, [1, 0, 1, 1], [[1], [1], [2], []])
    tally = ImportTally()
    dataset = imported(tmp_path, path, single_person=True, tally=tally)
    assert dataset.person_ids.tolist() == ["a.png#1", "c.png#2"]
    assert tally.left_out == {
        "without joints": 1,
        "on a test image, whose labels are not published": 1,
        "too near to somebody else (single_person)": 1,
    }
    assert dataset.manifest.origin == "mpii mpii_human_pose_v1_u12_1.mat, people who stand apart, box_scale 1.25"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scale": np.array([[-1.0]])}, "scale must be above 0"),
        ({"x2": np.array([[20]])}, "ends before it begins"),
        ({"annopoints": struct(point=points("l_knee", "l_knee"))}, r"two points of joint 4 \(l_knee\)"),
    ],
)
def test_a_wrong_person_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = release(tmp_path, [image("a.png", rect(), rect(**changes))], [1], [[1]])
    with pytest.raises(BadInput, match=rf"image 1, person 2 \(a\.png\): .*{said}"):
        imported(tmp_path, path)
    tally = ImportTally()
    assert len(imported(tmp_path, path, skip_broken=True, tally=tally)) == 1
    assert (tally.broken, tally.lines()[-2]) == (1, "1 left out: broken")


def test_a_person_without_a_place_is_cropped_around_the_joints(tmp_path: Path) -> None:
    dataset = imported(tmp_path, release(tmp_path, [image("a.png", rect(objpos=EMPTY, scale=EMPTY))], [1], [[1]]))
    assert misplaced(dataset) == []


def test_other_matlab_files_are_named(tmp_path: Path) -> None:
    savemat(tmp_path / "other.mat", {"annolist": np.zeros(3)})
    with pytest.raises(BadInput, match="no variable RELEASE; it has annolist"):
        imported(tmp_path, tmp_path / "other.mat")
    (tmp_path / "new.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF")
    with pytest.raises(BadInput, match=r"a MATLAB 7\.3 file; open it in MATLAB and save it with"):
        imported(tmp_path, tmp_path / "new.mat")
