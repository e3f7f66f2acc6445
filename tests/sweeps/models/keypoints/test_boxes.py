"""Boxes are px, left, top, width, height, of pictures that were given; anything else is refused in one message."""

import json
from pathlib import Path
from typing import Any

import pytest

from dpcore.errors import BadInput
from sweeps.models.keypoints.boxes import PersonBox, read_boxes
from sweeps.models.keypoints.pictures import Picture


def picture(name: str, size: tuple[int, int] = (131, 97)) -> Picture:
    return Picture(name=name, path=Path(name), stored_px=size, upright_px=size)


PICTURES = (picture("photos/a.png"), picture("photos/more/000139.jpg", (90, 171)))


def written(folder: Path, document: Any) -> Path:
    path = folder / ("boxes.csv" if isinstance(document, str) else "boxes.json")
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


COCO = {
    "images": [{"id": "x1", "file_name": "a.png", "width": 131, "height": 97}, {"id": 2, "file_name": "more/000139.jpg"}],
    "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
    "annotations": [
        {"image_id": "x1", "category_id": 1, "bbox": [10.5, 3, 40, 71.25]},
        {"image_id": "x1", "category_id": 3, "bbox": [1, 2, 4, 7]},
        {"image_id": 2, "category_id": 1, "bbox": [5, 6, 7, 8], "iscrowd": 1},
        {"image_id": 2, "category_id": 1, "bbox": [-3, 6, 70, 80]},
    ],
}


def test_cocos_form_is_read_by_file_names_and_crowds_and_cars_are_counted(tmp_path: Path) -> None:
    boxes = read_boxes(written(tmp_path, COCO), PICTURES)
    assert boxes.of == {
        "photos/a.png": (PersonBox(left=10.5, top=3, width=40, height=71.25, image_id="x1"),),
        "photos/more/000139.jpg": (PersonBox(left=-3, top=6, width=70, height=80, image_id=2),),
    }
    assert boxes.left_out == {"of another category than people": 1, "a crowd": 1}
    assert boxes.frame_px == {"photos/a.png": (131, 97)}


def test_detections_are_read_by_name_and_by_the_number_in_the_name(tmp_path: Path) -> None:
    detections = [
        {"image": "a.png", "bbox": [1, 2, 3, 4], "score": 0.37},
        {"file_name": "elsewhere/z.png", "bbox": [1, 2, 3, 4]},
        {"image_id": 139, "category_id": 1, "bbox": [9, 8, 7, 6], "score": 0.5},
        {"image_id": 139, "category_id": 2, "bbox": [9, 8, 7, 6], "score": 0.5},
    ]
    boxes = read_boxes(written(tmp_path, detections), PICTURES)
    assert [person.score for person in boxes.of["photos/a.png"]] == [0.37]
    assert boxes.of["photos/more/000139.jpg"] == (PersonBox(left=9, top=8, width=7, height=6, score=0.5, image_id=139),)
    assert boxes.elsewhere == 1
    assert boxes.left_out == {"of another category than people (1)": 1}
    assert boxes.count == 2


def test_csv_is_read_by_its_header(tmp_path: Path) -> None:
    boxes = read_boxes(written(tmp_path, "\ufeffimage,y,x,w,h,score\nphotos/a.png,3,10.5,40,71,0.9\nphotos/a.png,1,2,3,4,\n"), PICTURES)
    assert boxes.of["photos/a.png"] == (
        PersonBox(left=10.5, top=3, width=40, height=71, score=0.9),
        PersonBox(left=2, top=1, width=3, height=4),
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([{"image": "a.png", "bbox": [90, 60, 130, 96]}], r"reads as x1 y1 x2 y2"),
        ([{"image": "a.png", "bbox": [0.1, 0.2, 0.5, 0.9]}], "reads as fractions"),
        ([{"image": "a.png", "bbox": [140, 3, 20, 20]}], r"lies beside its picture of 131 × 97 px"),
        ([{"image": "a.png", "bbox": [1, 2, 0, 4]}], "a width and a height above 0"),
        ([{"image": "a.png", "bbox": [1, 2, 3]}], r"bbox must have the shape \(4,\)"),
        ([{"image": "a.png", "bbox": [1, 2, float("nan"), 4]}], "must be finite"),
        ([{"image": "a.png", "center": [4, 5], "scale": 1.2}], "as HRNet's"),
        ([{"bbox": [1, 2, 3, 4]}], "key 'image_id' is missing"),
        ([{"image": "z.png", "bbox": [1, 2, 3, 4]}], r"none of its 1 boxes belongs to a picture that was given \(the first is of z.png"),
        ([], "no box in it"),
        ({"people": []}, "expected COCO's form or a list of detections"),
        ({"images": [], "annotations": [{"image_id": 4, "bbox": [1, 2, 3, 4]}]}, "image_id 4 is not among"),
        ({**COCO, "images": [{"id": "x1", "file_name": "a.png", "width": 97, "height": 130}, COCO["images"][1]]}, "the file says 97 × 130"),
        ({**COCO, "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "car"}]}, "none is named like people; it has car, cat"),
        ("image,x1,y1,x2,y2\na.png,1,2,3,4\n", r"expected a header image,x,y,w,h .*given image, x1"),
        ("image,x,y,w,h\na.png,1,2,3,\n", "must be numbers"),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_message(document: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        read_boxes(written(tmp_path, document), PICTURES)
    assert "\n" not in str(refused.value)


def test_a_name_that_two_pictures_bear_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, [{"image": "a.png", "bbox": [1, 2, 3, 4]}])
    with pytest.raises(BadInput, match=r"a\.png may be photos/a\.png and old/a\.png; name pictures with their folder"):
        read_boxes(file, (*PICTURES, picture("old/a.png")))
    both = written(tmp_path, [{"image": "old/a.png", "bbox": [1, 2, 3, 4]}])
    assert list(read_boxes(both, (*PICTURES, picture("old/a.png"))).of) == ["old/a.png"]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for name in ("none.csv", "none.json"):
        with pytest.raises(BadInput, match="no such file"):
            read_boxes(tmp_path / name, PICTURES)
