"""CVAT, Label Studio, labelme and YOLO-pose: points become people, names become joints, fractions become pixels."""

import json
from pathlib import Path
from typing import Any

import pytest
from imported import import_file
from painted import PLACES, SIZE, misplaced, painted_person
from PIL import Image

from dpcore.data.shards import ShardSet, open_shards
from dpcore.errors import BadInput
from dpcore.importers.label_checks import ImportTally
from dpcore.pose.skeleton import COCO_17

NAMES = COCO_17.joints
WIDTH, HEIGHT = SIZE


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    painted_person().save(folder / "sub" / "a.png")
    pair = Image.new("RGB", (2 * WIDTH, HEIGHT))
    for column in (0, WIDTH):
        pair.paste(painted_person(), (column, 0))
    pair.save(folder / "two.png")
    return folder


def imported(form: str, annotations: Path, images: Path, **options: Any) -> ShardSet:
    out = images.parent / f"out-{len(list(images.parent.iterdir()))}"
    import_file(form, annotations, images, out, **options)
    return open_shards(out)


def spelled(name: str) -> str:
    return name.replace("l_", "Left ").replace("r_", "Right ")


def cvat(path: Path, *pictures: str, meta: str = "") -> Path:
    path.write_text(f'<?xml version="1.0"?>\n<annotations><version>1.1</version>{meta}{"".join(pictures)}</annotations>')
    return path


def cvat_points(dx: float = 0.0, extra: str = "", names: tuple[str, ...] = NAMES) -> str:
    return "".join(
        f'<points label="{spelled(name)}" outside="0" {extra} points="{PLACES[name][0] + dx:.2f},{PLACES[name][1]:.2f}"></points>'
        for name in names
    )


def cvat_picture(name: str, inside: str, width: int = WIDTH) -> str:
    return f'<image id="0" name="{name}" width="{width}" height="{HEIGHT}">{inside}</image>'


def test_skeletons_of_cvat_are_people_whatever_the_order_of_their_points(tmp_path: Path, images: Path) -> None:
    first = f'<skeleton label="person">{cvat_points()}</skeleton>'
    outside = '<points label="Nose" outside="1" points="0.00,0.00"/>'
    others = tuple(reversed(tuple(name for name in NAMES if name != "nose")))
    second = f'<skeleton label="person">{outside}{cvat_points(WIDTH, names=others)}</skeleton>'
    ball = '<box label="ball" xtl="1" ytl="1" xbr="5" ybr="5"></box><skeleton label="dog"></skeleton>'
    path = cvat(tmp_path / "a.xml", cvat_picture("two.png", first + second + ball, 2 * WIDTH))
    tally = ImportTally()
    dataset = imported("cvat", path, images, tally=tally)
    assert dataset.skeleton == COCO_17
    assert [misplaced(dataset, row) for row in (0, 1)] == [[], []]
    assert dataset.visible.sum(axis=1).tolist() == [17, 16]
    assert dataset.person_ids.tolist() == ["two.png#skeleton 1", "two.png#skeleton 2"]
    assert tally.left_out == {"a shape that is no keypoint": 1, "a skeleton of another label": 1}


def test_points_of_cvat_are_people_by_group_or_by_the_box_that_holds_them(tmp_path: Path, images: Path) -> None:
    boxes = "".join(
        f'<box label="person" {extra} xtl="{left + 54}" ytl="20" xbr="{left + 186}" ybr="296"/>'
        for left, extra in ((0, ""), (WIDTH, 'group_id="7"'))
    )
    inside = cvat_points() + cvat_points(WIDTH, 'group_id="7"') + boxes
    dataset = imported("cvat", cvat(tmp_path / "a.xml", cvat_picture("two.png", inside, 2 * WIDTH)), images)
    assert [misplaced(dataset, row) for row in (0, 1)] == [[], []]
    assert dataset.person_boxes_px[1].tolist() == [WIDTH + 54, 20, WIDTH + 186, 296]


def test_points_of_two_people_without_groups_are_refused(tmp_path: Path, images: Path) -> None:
    path = cvat(tmp_path / "a.xml", cvat_picture("two.png", cvat_points() + cvat_points(WIDTH), 2 * WIDTH))
    with pytest.raises(BadInput, match=r"image 0 \(two\.png\): two points nose; if they are of two people, group"):
        imported("cvat", path, images)


def test_points_under_one_label_need_the_order_of_a_skeleton(tmp_path: Path, images: Path) -> None:
    row = ";".join(f"{x:.2f},{y:.2f}" for x, y in (PLACES[name] for name in NAMES))
    path = cvat(tmp_path / "a.xml", cvat_picture("sub/a.png", f'<points label="person" points="{row}"/>'))
    with pytest.raises(BadInput, match=r"17 points under the label person, and nothing names them.*--order"):
        imported("cvat", path, images)
    assert misplaced(imported("cvat", path, images, order="coco_17")) == []


def test_the_joints_of_cvat_stand_in_the_order_of_its_labels(tmp_path: Path, images: Path) -> None:
    order = ("l_knee", "r_knee", "l_hip")
    labels = "".join(f"<label><name>{spelled(name)}</name><type>points</type><parent>person</parent></label>" for name in order)
    meta = f"<meta><job><labels><label><name>person</name><type>skeleton</type></label>{labels}</labels></job></meta>"
    inside = f'<skeleton label="person">{cvat_points(names=("r_knee", "l_hip", "l_knee"))}</skeleton>'
    dataset = imported("cvat", cvat(tmp_path / "a.xml", cvat_picture("sub/a.png", inside), meta=meta), images)
    assert (dataset.skeleton.joints, dataset.skeleton.flip_pairs, dataset.skeleton.name) == (order, (("l_knee", "r_knee"),), "person_3")
    assert misplaced(dataset) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<annotations><track id='0' label='person'></track></annotations>", "CVAT for video; export the task as"),
        ("<annotation><object/></annotation>", "Pascal VOC"),
        ("<annotations><image ", "not readable as XML"),
        ("<annotations><version>1.1</version></annotations>", "no image in it"),
    ],
)
def test_other_xml_is_named(tmp_path: Path, images: Path, content: str, said: str) -> None:
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(BadInput, match=said):
        imported("cvat", tmp_path / "a.xml", images)


def region(kind: str, value: dict[str, Any], key: str, width: int = WIDTH, **more: Any) -> dict[str, Any]:
    return {"type": kind, "id": key, "original_width": width, "original_height": HEIGHT, "image_rotation": 0, "value": value, **more}


def keypoints(dx: int = 0, width: int = WIDTH, **more: Any) -> list[dict[str, Any]]:
    return [
        region(
            "keypointlabels",
            {"x": 100 * (PLACES[name][0] + dx) / width, "y": 100 * PLACES[name][1] / HEIGHT, "keypointlabels": [spelled(name)]},
            f"{name}{dx}",
            width,
            **more,
        )
        for name in NAMES
    ]


def rectangle(key: str, dx: int = 0, width: int = WIDTH) -> dict[str, Any]:
    left, top, across, down = 54 + dx, 20, 132, 276
    value = {"x": 100 * left / width, "y": 100 * top / HEIGHT, "width": 100 * across / width, "height": 100 * down / HEIGHT}
    return region("rectanglelabels", {**value, "rotation": 0, "rectanglelabels": ["Person"]}, key, width)


def task(image: str, result: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"id": 41, "data": {"image": image}, "annotations": [{"was_cancelled": False, "result": result, **more}]}


def label_studio(tmp_path: Path, *tasks: Any) -> Path:
    (tmp_path / "ls.json").write_text(json.dumps(tasks))
    return tmp_path / "ls.json"


@pytest.mark.parametrize(
    "link", ["/data/upload/1/0a1b2c3d-a.png", "/data/local-files/?d=exports%2Fsub%2Fa.png", "https://host.example/x/sub/a.png?token=1"]
)
def test_percentages_of_label_studio_become_pixels_and_links_become_names(tmp_path: Path, images: Path, link: str) -> None:
    painted_person().save(images / "a.png")
    dataset = imported("label_studio", label_studio(tmp_path, task(link, keypoints())), images)
    assert (misplaced(dataset), dataset.skeleton) == ([], COCO_17)
    assert dataset.image_ids.tolist() == ["a.png" if "upload" in link else "sub/a.png"]


def test_rectangles_of_label_studio_group_their_points(tmp_path: Path, images: Path) -> None:
    wide = 2 * WIDTH
    inside = [rectangle("left", 0, wide), *keypoints(0, wide), rectangle("right", WIDTH, wide), *keypoints(WIDTH, wide, parentID="right")]
    dataset = imported("label_studio", label_studio(tmp_path, task("two.png", inside)), images)
    assert [misplaced(dataset, row) for row in (0, 1)] == [[], []]
    assert dataset.person_ids.tolist() == ["two.png#left", "two.png#right"]


def test_two_annotators_of_one_task_need_a_ground_truth(tmp_path: Path, images: Path) -> None:
    two = task("sub/a.png", keypoints())
    two["annotations"] *= 2
    with pytest.raises(BadInput, match="task 41: 2 annotations; mark one as ground truth"):
        imported("label_studio", label_studio(tmp_path, two), images)
    two["annotations"] = [{"result": []}, {"result": keypoints(), "ground_truth": True}]
    assert misplaced(imported("label_studio", label_studio(tmp_path, two), images)) == []


def test_a_turned_region_of_label_studio_is_refused(tmp_path: Path, images: Path) -> None:
    with pytest.raises(BadInput, match="or on a turned one"):
        imported("label_studio", label_studio(tmp_path, task("sub/a.png", keypoints(image_rotation=90))), images)


def labelme(path: Path, picture: str, **shapes: Any) -> None:
    points = [{"label": n, "points": [list(PLACES[n])], "group_id": 1, "shape_type": "point", "flags": {}} for n in NAMES]
    box = {"label": "person", "points": [[186, 296], [54, 20]], "group_id": 1, "shape_type": "rectangle"}
    line = {"label": "floor", "points": [[0, 0], [5, 5]], "group_id": None, "shape_type": "line"}
    document = {"version": "5.4.1", "imagePath": picture, "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH, **shapes}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"shapes": [*points, box, line], **document}))


def test_a_folder_of_labelme_is_one_dataset(tmp_path: Path, images: Path) -> None:
    painted_person().save(images / "b.png")
    labelme(tmp_path / "labels" / "a.json", "..\\images\\sub\\a.png")
    labelme(tmp_path / "labels" / "b.json", "b.png")
    tally = ImportTally()
    dataset = imported("labelme", tmp_path / "labels", images, tally=tally)
    assert [misplaced(dataset, row) for row in (0, 1)] == [[], []]
    assert dataset.image_ids.tolist() == ["sub/a.png", "b.png"]
    assert dataset.person_boxes_px[0].tolist() == [54, 20, 186, 296]
    assert tally.lines() == ["2 left out: a shape that is no keypoint"]
    with pytest.raises(BadInput, match=r"no \.json file in this folder"):
        imported("labelme", images, images)


def test_the_size_that_labelme_wrote_is_held_against_the_picture(tmp_path: Path, images: Path) -> None:
    labelme(tmp_path / "labels" / "a.json", "sub/a.png", imageWidth=HEIGHT, imageHeight=WIDTH)
    with pytest.raises(BadInput, match=r"sub/a\.png has 240 × 320 px, the annotations say 320 × 240"):
        imported("labelme", tmp_path / "labels", images)


def yolo(tmp_path: Path, *, dims: int = 3, names: tuple[str, ...] = NAMES, row: str | None = None, **more: Any) -> Path:
    values = [(PLACES[name][0] / WIDTH, PLACES[name][1] / HEIGHT, 2)[:dims] for name in names]
    line = "0 .5 .49375 .55 .8625 " + " ".join(f"{value:.6f}" for point in values for value in point)
    (tmp_path / "labels" / "sub").mkdir(parents=True, exist_ok=True)
    (tmp_path / "labels" / "sub" / "a.txt").write_text(f"1 .5 .5 .1 .1\n{row or line}\n")
    document = {"kpt_shape": [len(names), dims], "names": {0: "person", 1: "ball"}, **more}
    (tmp_path / "data.yaml").write_text(json.dumps(document))  # JSON is YAML
    return tmp_path / "data.yaml"


@pytest.mark.parametrize("dims", [2, 3])
def test_fractions_of_yolo_become_pixels(tmp_path: Path, images: Path, dims: int) -> None:
    tally = ImportTally()
    dataset = imported("yolo", yolo(tmp_path, dims=dims, flip_idx=list(COCO_17.mirrored)), images, tally=tally)
    assert (misplaced(dataset), dataset.skeleton, dataset.image_ids.tolist()) == ([], COCO_17, ["sub/a.png"])
    assert tally.lines() == ["1 class of 17 keypoints without names: read as coco_17", "1 left out: a picture without a text file"]


def test_joints_of_yolo_are_named_by_the_file_or_by_an_order(tmp_path: Path, images: Path) -> None:
    limbs = ("l_knee", "r_knee", "l_hip", "r_hip")
    named = yolo(tmp_path, names=limbs, kpt_names={"0": [spelled(name) for name in limbs]}, flip_idx=[1, 0, 3, 2])
    text = (tmp_path / "data.yaml").read_text().replace('"0"', "0").replace('"1"', "1")
    named.write_text(text)
    assert imported("yolo", named, images).skeleton.joints == limbs
    with pytest.raises(BadInput, match="4 joints without names"):
        imported("yolo", yolo(tmp_path, names=limbs), images)
    with pytest.raises(BadInput, match="17 joints without names, and they are not in the order of coco_17"):
        imported("yolo", yolo(tmp_path, flip_idx=list(range(17))), images)


def test_mirror_images_of_yolo_must_agree_with_the_names(tmp_path: Path, images: Path) -> None:
    names = [spelled(name) for name in NAMES]
    with pytest.raises(BadInput, match="flip_idx and the names of the joints differ on the mirror images"):
        imported("yolo", yolo(tmp_path, kpt_names=names, flip_idx=list(range(17))), images)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("0 .5 .5 .1", r"a\.txt, line 2: 4 numbers; class, box and kpt_shape make 56"),
        ("0 120 160 100 200 " + "0 0 0 " * 17, r"line 2: the box .* must be fractions"),
        ("0 .5 .5 .1 x", "expected numbers"),
    ],
)
def test_a_wrong_line_of_yolo_is_named(tmp_path: Path, images: Path, row: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        imported("yolo", yolo(tmp_path, row=row), images)
