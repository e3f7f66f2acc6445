"""`dpsweep predict`: keypoints of one's own pictures, and nothing half-written."""

import json
from pathlib import Path

import numpy as np
import pytest
from imported import import_file
from PIL import Image

import dpsweep
from dpcore.config import Places
from dpcore.data.shards import open_shards
from dpcore.errors import BadInput, Refused
from dpcore.pose.skeleton import COCO_17
from sweeps.cli import main
from sweeps.models.keypoints.estimator import PoseEstimator


def test_each_picture_gets_keypoints_in_its_own_px(model: Path, photos: Path) -> None:
    found = dpsweep.predict(model, photos, batch=2)
    assert [Path(person.image).name for person in found.people] == ["a.png", "c.PNG", "b.jpg"]
    assert found.left_out == {"files that are no pictures by their suffix": 1}
    estimator = PoseEstimator.load(model)
    with Image.open(photos / "a.png") as picture:
        alone = estimator.of_picture(picture.convert("RGB"), [None])
    assert np.allclose(found.people[0].keypoints, alone.points[0], atol=1e-4)
    assert found.warning is None
    (model / "claim.json").unlink()
    assert "cut off" in str(dpsweep.predict(model, photos / "a.png").warning)


def test_json_goes_to_stdout_alone_and_a_line_says_that_the_whole_picture_is_the_crop(
    model: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(model), str(photos / "a.png"), str(photos / "more")]) == 0
    shown = capsys.readouterr()
    assert [set(entry) for entry in json.loads(shown.out)] == [{"image", "category_id", "keypoints", "score"}] * 2
    assert len(json.loads(shown.out)[0]["keypoints"]) == 48
    assert shown.err.count("each whole picture is the crop of one person") == 1
    assert "2 people on 2 pictures" in shown.err


def test_skeletons_are_drawn_on_pictures_of_the_same_size_under_names_of_their_own(model: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "more" / "a.png").write_bytes((photos / "a.png").read_bytes())
    found = dpsweep.predict(model, [photos, photos / "more"], draw=tmp_path / "drawn", out=tmp_path / "k.csv")
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a-1.png", "a.png", "b.png", "c.png"]
    assert len(found.people) == 4
    with Image.open(tmp_path / "drawn" / "b.png") as drawn, Image.open(photos / "more" / "b.jpg") as given:
        assert drawn.size == given.size
        assert np.any(np.asarray(drawn) != np.asarray(given))


def coco_file(photos: Path, folder: Path) -> Path:
    """Two people on the first picture, one on the second, none on the third."""
    points = [value for index in range(17) for value in (30.0 + 2 * index, 20.0 + 3 * index, 2)]
    people = [("a.png", [20, 10, 60, 70]), ("a.png", [25.5, 15, 50, 71]), ("more/b.jpg", [3, 5, 80, 160])]
    document = {
        "images": [{"id": index, "file_name": name} for index, name in enumerate(("a.png", "more/b.jpg"), start=40)],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO_17.joints)}],
        "annotations": [
            {"id": row, "image_id": 40 if name == "a.png" else 41, "category_id": 1, "bbox": box, "keypoints": points}
            for row, (name, box) in enumerate(people)
        ],
    }
    path = folder / "people.json"
    path.write_text(json.dumps(document))
    return path


def test_a_datasets_own_photographs_and_boxes_give_the_evaluators_predictions(
    model: Path, photos: Path, tmp_path: Path, places: Places
) -> None:
    boxes = coco_file(photos, tmp_path)
    import_file("coco", boxes, photos, places.data_dir / "d", height_px=64, width_px=64)
    dataset = open_shards(places.data_dir / "d")
    found = dpsweep.predict(model, photos, boxes=boxes)
    assert found.left_out == {"files that are no pictures by their suffix": 1, "pictures without a box": 1}
    estimator = PoseEstimator.load(model)
    inside = estimator.of_crops(dataset.images(np.arange(3)))
    by_image = sorted(found.people, key=lambda person: person.image)
    for row, person in enumerate(by_image):
        crop = estimator.crop_of(person.box, (1, 1))
        assert np.allclose(crop.to_crop(person.keypoints), inside.points[row], atol=1e-4)
    assert [entry["image_id"] for entry in found.document()] == [40, 40, 41]


def test_nothing_is_written_where_a_picture_breaks_off_and_others_are_done_where_that_is_asked_for(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    whole = (photos / "more" / "b.jpg").read_bytes()
    (photos / "more" / "b.jpg").write_bytes(whole[: len(whole) // 2])
    out, drawn = tmp_path / "k.json", tmp_path / "drawn"
    with pytest.raises(BadInput, match=r"b\.jpg cannot be read .*Nothing was written"):
        dpsweep.predict(model, photos, out=out, draw=drawn)
    assert not out.exists()
    assert not drawn.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    found = dpsweep.predict(model, photos, out=out, draw=drawn, skip_broken=True)
    assert found.left_out["pictures that cannot be read"] == 1
    assert len(json.loads(out.read_text())) == len(list(drawn.iterdir())) == 2


def test_what_exists_is_not_overwritten_and_is_refused_before_any_work(model: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text("mine")
    with pytest.raises(Refused, match="not overwritten"):
        dpsweep.predict(tmp_path, photos, out=tmp_path / "k.json")
    with pytest.raises(Refused, match="--draw"):
        dpsweep.predict(tmp_path, photos, draw=photos)


def test_a_folder_without_a_model_is_told(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(photos), str(photos)]) == 2
    assert "give the folder of a finished trial" in capsys.readouterr().err
