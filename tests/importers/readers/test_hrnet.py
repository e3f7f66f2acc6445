"""Importers: coordinates land where pixels land, and every mistake names its file and record."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dotted import DOT, FIELDS, photograph_with_dot
from imported import import_file
from PIL import Image
from scipy.io import savemat

from dpcore.data.crops import CropBox
from dpcore.data.shards import ShardSet, open_shards
from dpcore.errors import BadInput
from dpcore.pose.skeleton import MPII_16

JOINTS = MPII_16.index


def hrnet_record(first: int = 0, **changes: Any) -> dict[str, Any]:
    joint = [DOT[0] + first, DOT[1] + first]
    values = {"image": "a.png", "center": [50.0 + first, 40.0 + first], "scale": 0.32, "joints": [joint] * 16, "joints_vis": [1] * 16}
    return {**values, **changes}


def imported(tmp_path: Path, records: Any, *, one_based: bool = False, **options: Any) -> ShardSet:
    photograph_with_dot(tmp_path / "images")
    annotations = tmp_path / "a.json"
    annotations.write_text(json.dumps(records))
    import_file("hrnet", annotations, tmp_path / "images", tmp_path / "out", one_based=one_based, **{**FIELDS, **options})
    return open_shards(tmp_path / "out")


def centroid(image: np.ndarray[Any, Any]) -> tuple[float, float]:
    light = image[..., 0].astype(float)
    y, x = np.mgrid[0 : light.shape[0], 0 : light.shape[1]]
    return float((light * x).sum() / light.sum()), float((light * y).sum() / light.sum())


@pytest.mark.parametrize("one_based", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (128, 96), (32, 48), (200, 200)])
def test_a_joint_lands_on_its_pixel(tmp_path: Path, one_based: bool, size: tuple[int, int]) -> None:
    records = [hrnet_record(first=int(one_based))]
    dataset = imported(tmp_path, records, one_based=one_based, height_px=size[0], width_px=size[1])
    assert centroid(dataset.images(np.array([0]))[0]) == pytest.approx(tuple(dataset.keypoints[0, 0]), abs=0.1)


def test_the_crop_follows_hrnets_affine(tmp_path: Path) -> None:
    """side = scale · 200 · 1.25 = 80 px onto 64: zoom 0.8; (60, 45) - (50, 40) scaled, plus half the crop."""
    dataset = imported(tmp_path, [hrnet_record()])
    np.testing.assert_allclose(dataset.keypoints[0, 0], [10 * 0.8 + 32, 5 * 0.8 + 32], rtol=1e-6)


def test_the_mpii_centre_moves_down_by_fifteen_px_times_scale(tmp_path: Path) -> None:
    dataset = imported(tmp_path, [hrnet_record()], mpii_centre_shift=True)
    np.testing.assert_allclose(dataset.keypoints[0, 0], [40, (5 - 15 * 0.32) * 0.8 + 32], rtol=1e-6)


def test_a_narrow_crop_keeps_the_aspect_and_the_whole_square() -> None:
    box = CropBox(centre=(50.0, 50.0), box_px=100.0, height_px=256, width_px=192)
    left, right = box.to_crop(np.array([[0.0, 50.0], [100.0, 50.0]]))
    assert (left[0], right[0]) == (0.0, 192.0)
    assert box.zoom == 1.92


def test_beyond_the_photograph_the_crop_is_black(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (255, 255, 255)).save(tmp_path / "white.png")
    with Image.open(tmp_path / "white.png") as white:
        crop = CropBox(centre=(0.0, 0.0), box_px=64.0, height_px=64, width_px=64).cut(white)
    assert crop[:30, :30].max() == 0
    assert crop[34:, 34:].min() == 255


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"head_size": 10.0}, 8.0), ({"head_size": 0}, None), ({}, None), ({"head_box": [0, 0, 30, 40]}, 0.6 * 50 * 0.8)],
)
def test_head_size_of_a_record_is_scaled_with_the_crop(tmp_path: Path, fields: dict[str, Any], expected: float | None) -> None:
    head = float(imported(tmp_path, [hrnet_record(**fields)]).head_size_px[0])
    assert np.isnan(head) if expected is None else head == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["mat", "npz"])
def test_head_boxes_of_a_file_give_six_tenths_of_the_diagonal(tmp_path: Path, kind: str) -> None:
    boxes = np.array([[[0, 0], [30, 40]], [[5, 5], [11, 13]]], dtype=float)
    path = tmp_path / f"gt_valid.{kind}"
    if kind == "mat":
        savemat(path, {"headboxes_src": boxes.transpose(1, 2, 0)})
    else:
        np.savez(path, head_box=boxes.reshape(2, 4))
    dataset = imported(tmp_path, [hrnet_record(), hrnet_record()], head_boxes=path)
    np.testing.assert_allclose(dataset.head_size_px, [0.6 * 50 * 0.8, 0.6 * 10 * 0.8], rtol=1e-6)


def test_head_boxes_of_another_split_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "boxes.npz", head_box=np.zeros((3, 4)))
    with pytest.raises(BadInput, match="3 boxes for 1 annotations"):
        imported(tmp_path, [hrnet_record()], head_boxes=tmp_path / "boxes.npz")
    with pytest.raises(BadInput, match="no such file"):
        imported(tmp_path, [hrnet_record()], head_boxes=tmp_path / "none.mat")


def test_people_of_one_photograph_share_the_image_unit(tmp_path: Path) -> None:
    dataset = imported(tmp_path, [hrnet_record(), hrnet_record()])
    assert len(set(dataset.image_ids)) == 1
    assert len(set(dataset.person_ids)) == 2


def test_no_machine_path_is_stored(tmp_path: Path) -> None:
    dataset = imported(tmp_path, [hrnet_record()])
    assert str(tmp_path) not in dataset.source_ids[0] + dataset.manifest.origin


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({k: v for k, v in hrnet_record().items() if k != "scale"}, "key 'scale' is missing"),
        (hrnet_record(scale=0), "scale must be above 0"),
        (hrnet_record(center=[1.0, float("nan")]), "center must be finite"),
        (hrnet_record(joints=[[float("nan"), 1.0]] * 16), "r_ankle is labelled but"),
        (hrnet_record(joints=[[1.0, 1.0]] * 14), r"joints must have the shape \(16, 2\), given \(14, 2\)"),
        (hrnet_record(joints="none"), "joints must be numbers"),
        (hrnet_record(image="b.png"), r"image .*b\.png is not there"),
        (hrnet_record(image=3), "image must be a name"),
        ([1, 2], "expected an object with keys"),
    ],
)
def test_a_wrong_record_is_named_and_nothing_is_left(tmp_path: Path, record: Any, said: str) -> None:
    with pytest.raises(BadInput, match=rf"a\.json, record 1\b.*{said}"):
        imported(tmp_path, [hrnet_record(), record])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "images"]


@pytest.mark.parametrize(("document", "said"), [([], "no record in it"), ({"images": []}, "expected a list")])
def test_an_annotation_file_without_records_is_refused(tmp_path: Path, document: Any, said: str) -> None:
    with pytest.raises(BadInput, match=rf"a\.json: {said}"):
        imported(tmp_path, document)


def test_what_is_no_json_no_image_and_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(BadInput, match=r"bad\.json: not readable as JSON"):
        import_file("hrnet", tmp_path / "bad.json", tmp_path, tmp_path / "out", **FIELDS, one_based=False)
    (tmp_path / "good.json").write_text(json.dumps([hrnet_record(image="broken.jpg")]))
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    with pytest.raises(BadInput, match=r"broken\.jpg cannot be read"):
        import_file("hrnet", tmp_path / "good.json", tmp_path, tmp_path / "out", **FIELDS, one_based=False)
    with pytest.raises(BadInput, match="no such folder"):
        import_file("hrnet", tmp_path / "good.json", tmp_path / "none", tmp_path / "out", **FIELDS, one_based=False)
    with pytest.raises(BadInput, match=r"dataset\.height_px"):
        import_file("hrnet", tmp_path / "good.json", tmp_path, tmp_path / "out", **{**FIELDS, "height_px": 0}, one_based=False)


def test_lspet_records_import_with_their_head_sizes(tmp_path: Path, shared_data: Path) -> None:
    records = json.loads((shared_data / "lspet" / "val.json").read_text())[:20]
    annotations = tmp_path / "val.json"
    annotations.write_text(json.dumps(records))
    fields = {**FIELDS, "height_px": 192, "width_px": 192}
    import_file("hrnet", annotations, shared_data / "lspet" / "images", tmp_path / "out", **fields, one_based=False)
    dataset = open_shards(tmp_path / "out")
    zoom = 192 / (np.array([record["scale"] for record in records]) * 250)
    np.testing.assert_allclose(dataset.head_size_px, [r["head_size"] for r in records] * zoom, rtol=1e-5)
    inside = (dataset.keypoints[dataset.visible] > -1) & (dataset.keypoints[dataset.visible] < 193)
    assert inside.all()


def test_crops_come_from_labels_unless_a_detector_is_named(tmp_path: Path) -> None:
    for crops, options in (("labels", {}), ("detector", {"crops": "detector"})):
        (tmp_path / crops).mkdir()
        assert imported(tmp_path / crops, [hrnet_record()], **options).manifest.crops == crops


def test_a_record_can_name_the_video_of_its_frame(tmp_path: Path) -> None:
    dataset = imported(tmp_path, [hrnet_record(video="walk"), hrnet_record()])
    assert dataset.video_ids.tolist() == ["walk", ""]


def test_no_pixel_beyond_the_stored_box_reaches_the_crop(tmp_path: Path) -> None:
    box = CropBox(centre=(50.0, 40.0), box_px=0.32 * 200 * 1.25, height_px=20, width_px=20)
    dataset = imported(tmp_path, [hrnet_record()], height_px=20, width_px=20)
    left, top, right, bottom = (int(side) for side in dataset.boxes_px[0])
    assert (left, top, right, bottom) == box.reach
    generator = np.random.default_rng(0)
    inside = generator.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    outside = generator.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    outside[max(top, 0) : bottom, max(left, 0) : right] = inside[max(top, 0) : bottom, max(left, 0) : right]
    np.testing.assert_array_equal(box.cut(Image.fromarray(inside)), box.cut(Image.fromarray(outside)))
    assert left < right < 120


def test_a_list_may_have_the_joints_of_another_skeleton(tmp_path: Path) -> None:
    record = hrnet_record(joints=[DOT] * 14, joints_vis=[1] * 14)
    assert imported(tmp_path, [record], order="lsp_14").skeleton.name == "lsp_14"
