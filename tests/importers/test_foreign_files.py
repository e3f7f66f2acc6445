"""Files that people really have: labels land on their joints, or the import is refused with what to do."""

import json
import os
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imported import import_file
from painted import SIZE, coco_of_person, hrnet_of_person, misplaced, painted_person
from PIL import Image
from scipy.io import savemat

from dpcore.data.shards import ShardSet, open_shards
from dpcore.errors import BadInput, Refused
from dpcore.importers.label_checks import ImportTally
from dpcore.importers.names import keypoint_name
from dpcore.pose.skeleton import COCO_17

SPELLINGS = ["left_shoulder", "l_shoulder", "LShoulder", "Left-Shoulder", "left shoulder", "L_Shoulder", "shoulder_left"]
LIMBS = tuple(name for name in COCO_17.joints if name[:2] in ("l_", "r_") and "ear" not in name and "eye" not in name)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    painted_person().save(folder / "a.png")
    return folder


def coco(tmp_path: Path, document: Any, **options: Any) -> ShardSet:
    path = tmp_path / "coco.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    out = tmp_path / options.pop("out", "out")
    import_file("coco", path, tmp_path / "images", out, **options)
    return open_shards(out)


def hrnet(tmp_path: Path, records: Any, **options: Any) -> ShardSet:
    path = tmp_path / "hrnet.json"
    path.write_text(json.dumps(records))
    import_file("hrnet", path, tmp_path / "images", tmp_path / "out", **options)
    return open_shards(tmp_path / "out")


def labelled(dataset: ShardSet) -> int:
    return int(dataset.visible[0].sum())


def phone(path: Path) -> None:
    """A portrait picture as phones store it: lying on its side, with the EXIF tag that turns it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    painted_person().transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)


def test_a_phones_picture_is_turned_to_the_frame_that_was_labelled(tmp_path: Path, images: Path) -> None:
    phone(images / "phone.jpg")
    dataset = coco(tmp_path, coco_of_person("phone.jpg"))
    assert (misplaced(dataset), labelled(dataset)) == ([], 17)


def test_a_phones_picture_whose_labels_are_in_the_stored_frame_is_left_as_it_is(tmp_path: Path, images: Path) -> None:
    phone(images / "phone.jpg")
    document = coco_of_person("phone.jpg")
    document["images"][0].update(width=SIZE[1], height=SIZE[0])
    person = document["annotations"][0]
    points = np.array(person["keypoints"], dtype=float).reshape(-1, 3)
    points[:, 0], points[:, 1] = points[:, 1].copy(), SIZE[0] - 1 - points[:, 0]
    person.update(keypoints=points.ravel().tolist(), bbox=[20, 54, 276, 132])
    assert misplaced(coco(tmp_path, document)) == []


def test_a_turned_picture_is_refused_where_nothing_says_which_frame_was_labelled(tmp_path: Path, images: Path) -> None:
    phone(images / "phone.jpg")
    with pytest.raises(BadInput, match=r"record 0 \(phone\.jpg\).*EXIF orientation 6"):
        hrnet(tmp_path, [hrnet_of_person("phone.jpg")])


def test_a_picture_of_another_size_than_was_labelled_is_refused(tmp_path: Path, images: Path) -> None:
    painted_person().resize((120, 160)).save(images / "small.png")
    with pytest.raises(BadInput, match=r"small\.png has 120 × 160 px, the annotations say 240 × 320"):
        coco(tmp_path, coco_of_person("small.png"))


@pytest.mark.parametrize(
    "order",
    [COCO_17.joints[::-1], LIMBS, (*LIMBS, "nose", "head_top", "upper_neck"), tuple(sorted(COCO_17.joints))],
    ids=lambda order: str(len(order)),
)
def test_keypoints_are_taken_by_their_names(tmp_path: Path, images: Path, order: tuple[str, ...]) -> None:
    dataset = coco(tmp_path, coco_of_person("a.png", names=order))
    assert misplaced(dataset) == []
    assert (labelled(dataset), dataset.skeleton.count) == (len(order), len(order))
    assert (dataset.skeleton == COCO_17) == (len(order) == 17)
    mapped = coco(tmp_path, coco_of_person("a.png", names=order), skeleton="mpii_16", out="mapped")
    assert (misplaced(mapped), labelled(mapped)) == ([], 14 + 2 * ("head_top" in order))


@pytest.mark.parametrize(
    "written", ["left_shoulder", "l_shoulder", "LShoulder", "Left-Shoulder", "left shoulder", "L_Shoulder", "shoulder_left"]
)
def test_one_joint_has_many_spellings(written: str) -> None:
    assert keypoint_name(written) == "l_shoulder"


def test_joints_of_other_names_are_the_files_own_skeleton(tmp_path: Path, images: Path) -> None:
    document = coco_of_person("a.png")
    document["categories"][0] |= {"keypoints": ["root", *COCO_17.joints[1:]], "skeleton": [[1, 12], [1, 13]]}
    skeleton = coco(tmp_path, document).skeleton
    assert skeleton.joints == ("root", *COCO_17.joints[1:])
    assert skeleton.flip_pairs == COCO_17.flip_pairs
    assert skeleton.lines == (("root", "l_hip"), ("root", "r_hip"))


def test_a_joint_that_is_named_twice_is_refused(tmp_path: Path, images: Path) -> None:
    document = coco_of_person("a.png")
    for names, said in ((["left hip", *COCO_17.joints[1:]], "l_hip stands twice"), (["\u9f3b", *COCO_17.joints[1:]], "no name for")):
        document["categories"][0]["keypoints"] = names
        with pytest.raises(BadInput, match=said):
            coco(tmp_path, document)


def test_an_animal_is_no_person(tmp_path: Path, images: Path) -> None:
    document = coco_of_person("a.png")
    document["categories"][0]["name"] = "dog"
    with pytest.raises(BadInput, match=r"no category of people with keypoints; it has dog.*--category"):
        coco(tmp_path, document)
    assert misplaced(coco(tmp_path, document, category="dog")) == []


def test_annotations_of_other_categories_are_left_out_and_counted(tmp_path: Path, images: Path) -> None:
    document = coco_of_person("a.png")
    document["categories"] = [{"id": 2, "name": "dog"}, *document["categories"], {"id": 3, "name": "cat", "keypoints": []}]
    document["annotations"] += [{"id": 8, "image_id": 1, "category_id": 2, "bbox": [0, 0, 5, 5]}]
    document["annotations"] += [{"id": 9, "image_id": 1, "category_id": 3, "bbox": [0, 0, 5, 5], "keypoints": []}]
    tally = ImportTally()
    assert misplaced(coco(tmp_path, document, tally=tally)) == []
    assert tally.lines() == ["2 left out: of another category"]


def test_ids_join_as_they_are_written(tmp_path: Path, images: Path) -> None:
    Image.new("RGB", SIZE).save(images / "b.png")
    for ids in ((2**60 + 1, 2**60 + 2), ("first", "second"), ("1", "01")):
        document = coco_of_person("a.png", "b.png")
        for image, person, one in zip(document["images"], document["annotations"], ids, strict=True):
            image["id"] = person["image_id"] = one
        document["annotations"] = document["annotations"][:1]
        assert misplaced(coco(tmp_path, document)) == []
        (tmp_path / "out").rename(tmp_path / str(ids[0]))


def test_one_id_for_two_pictures_or_two_people_is_refused(tmp_path: Path, images: Path) -> None:
    painted_person().save(images / "b.png")
    document = coco_of_person("a.png", "b.png")
    document["images"][1]["id"] = 1
    with pytest.raises(BadInput, match=r"id 1 stands for a\.png and for b\.png"):
        coco(tmp_path, document)
    document = coco_of_person("a.png", "b.png", id=7)
    with pytest.raises(BadInput, match="id 7 is given twice"):
        coco(tmp_path, document)


def test_sixteen_bit_grey_keeps_its_picture(tmp_path: Path, images: Path) -> None:
    grey = np.asarray(painted_person().convert("L"))
    Image.fromarray(grey).save(images / "grey8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(images / "grey16.png")
    dataset = hrnet(tmp_path, [hrnet_of_person("grey8.png"), hrnet_of_person("grey16.png")])
    eight, sixteen = dataset.images(np.array([0, 1])).astype(int)
    assert np.abs(eight - sixteen).max() <= 1
    assert eight.std() > 10


def test_transparent_pixels_show_nothing_of_what_is_behind_them(tmp_path: Path, images: Path) -> None:
    pixels = np.full((SIZE[1], SIZE[0], 4), (255, 0, 255, 0), dtype=np.uint8)
    pixels[150:170, 110:130] = (255, 255, 255, 255)
    Image.fromarray(pixels, "RGBA").save(images / "cutout.png")
    image = hrnet(tmp_path, [hrnet_of_person("cutout.png")]).images(np.array([0]))[0]
    assert image.max() == 255
    assert np.median(image) == 0
    assert (image[..., 0] == image[..., 1]).all()  # no magenta


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scale": 280.0}, "is scale in units of 200 px"),
        ({"scale": 0.001}, "is scale in units of 200 px"),
        ({"center": [4000, 158]}, "lies outside the picture of 240 × 320 px"),
        ({"joints": [[x + 900, y] for x, y in hrnet_of_person("a.png")["joints"]]}, "16 of 16 labelled joints lie outside"),
        ({"joints": [[y, x] for x, y in hrnet_of_person("a.png")["joints"]]}, "x and y swapped"),
        ({"joints": [[1e39, 1.0], *hrnet_of_person("a.png")["joints"][1:]]}, "px away, which no dataset can hold"),
        ({"head_box": [100, 20, 40, 60]}, "ends before it begins.*x y w h"),
        ({"image": "../images/a.png"}, "is not below the folder"),
        ({"image": "C:\\pictures\\a.png"}, "is not below the folder"),
    ],
)
def test_what_is_surely_wrong_is_refused_with_its_record(tmp_path: Path, images: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=rf"record 0 \(.*{said}"):
        hrnet(tmp_path, [hrnet_of_person("a.png", **changes)])
    assert not (tmp_path / "out").exists()


def test_an_absolute_path_is_refused(tmp_path: Path, images: Path) -> None:
    with pytest.raises(BadInput, match="is not below the folder"):
        hrnet(tmp_path, [hrnet_of_person(str(images / "a.png"))])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bbox": [54, 120, 190, 300]}, "reads as x1 y1 x2 y2"),
        ({"bbox": [200, 300, 20, 10]}, "no labelled keypoint lies in bbox"),
        (
            {"keypoints": [v / 400 if i % 3 < 2 else v for i, v in enumerate(coco_of_person("a.png")["annotations"][0]["keypoints"])]},
            "fractions",
        ),
        ({"iscrowd": "yes"}, "iscrowd must be 0 or 1"),
    ],
)
def test_boxes_and_fractions_of_another_form_are_refused(tmp_path: Path, images: Path, changes: dict[str, Any], said: str) -> None:
    document = coco_of_person("a.png", **changes)
    if changes.get("bbox") == [54, 120, 190, 300]:  # two corners hold all keypoints and fit the picture
        for index, value in enumerate(document["annotations"][0]["keypoints"]):
            if index % 3 == 1:
                document["annotations"][0]["keypoints"][index] = max(value, 130)
    with pytest.raises(BadInput, match=rf"annotation 0.*{said}"):
        coco(tmp_path, document)


def test_a_joint_at_no_place_is_not_labelled_and_counted(tmp_path: Path, images: Path) -> None:
    joints = hrnet_of_person("a.png")["joints"]
    tally = ImportTally()
    dataset = hrnet(tmp_path, [hrnet_of_person("a.png", joints=[[0, 0], [-1, -1], [239.0, 330.0], *joints[3:]])], tally=tally)
    assert labelled(dataset) == 14
    assert tally.lines() == [
        "2 joints marked as labelled at (0, 0) or (-1, -1): taken as not labelled",
        "1 labelled joints outside their photograph",
    ]


def test_a_head_size_that_is_null_is_unknown(tmp_path: Path, images: Path) -> None:
    assert np.isnan(hrnet(tmp_path, [hrnet_of_person("a.png", head_size=None)]).head_size_px).all()


def test_head_boxes_of_x_y_width_and_height_are_refused(tmp_path: Path, images: Path) -> None:
    np.savez(tmp_path / "heads.npz", head_box=np.array([[104.0, 26.0, 32.0, 58.0]]) * [1, 3, 1, 1])
    with pytest.raises(BadInput, match=r"heads\.npz, box 0: .*ends before it begins"):
        hrnet(tmp_path, [hrnet_of_person("a.png")], head_boxes=tmp_path / "heads.npz")


def test_one_photograph_is_one_unit_however_it_is_spelled(tmp_path: Path, images: Path) -> None:
    (images / "sub").mkdir()
    os.symlink(images / "a.png", images / "link.png")
    os.symlink("..", images / "sub" / "up")
    spellings = ["a.png", "./a.png", "sub/../a.png", "link.png", "sub\\up\\a.png"]
    dataset = hrnet(tmp_path, [hrnet_of_person(name) for name in spellings])
    assert set(dataset.image_ids) == {"a.png"}


def test_a_link_out_of_the_folder_is_one_photograph(tmp_path: Path, images: Path) -> None:
    painted_person().save(tmp_path / "elsewhere.png")
    for name in ("b.png", "c.png"):
        os.symlink(tmp_path / "elsewhere.png", images / name)
    assert set(hrnet(tmp_path, [hrnet_of_person("b.png"), hrnet_of_person("c.png")]).image_ids) == {"b.png"}


def test_private_data_refuse_one_crop_under_two_ids(tmp_path: Path, images: Path) -> None:
    painted_person().save(images / "copy.png")
    records = [hrnet_of_person("a.png"), hrnet_of_person("copy.png")]
    private = {"role": "PRIVATE", "protected": True}
    with pytest.raises(Refused, match=r"record 1 \(copy\.png\) and .*record 0 \(a\.png\) are the same crop"):
        hrnet(tmp_path, records, **private)
    with pytest.raises(Refused, match="are the same crop"):
        hrnet(tmp_path, [hrnet_of_person("a.png")] * 2, **private)
    assert not (tmp_path / "out").exists()
    assert len(hrnet(tmp_path, records)) == 2  # PUBLIC: nobody is charged


@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_are_found_in_either_normal_form(tmp_path: Path, images: Path, written: Any, stored: Any) -> None:
    painted_person().save(images / unicodedata.normalize(stored, "gr\u00f6\u00dfe.png"))
    assert misplaced(hrnet(tmp_path, [hrnet_of_person(unicodedata.normalize(written, "gr\u00f6\u00dfe.png"))])) == []


def test_a_byte_order_mark_is_read_and_other_encodings_are_named(tmp_path: Path, images: Path) -> None:
    path = tmp_path / "a.json"
    text = json.dumps(coco_of_person("a.png"))
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    import_file("coco", path, images, tmp_path / "out")
    for content in (text.encode("utf-16"), '["größe"]'.encode("latin-1")):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"a\.json: not UTF-8 text"):
            import_file("coco", path, images, tmp_path / "other")


def test_files_of_other_kinds_are_recognised(tmp_path: Path, images: Path) -> None:
    savemat(tmp_path / "joints.mat", {"joints": np.zeros(3)})
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("a.json", "[]")
    (tmp_path / "cvat.xml").write_text("<annotations/>")
    kinds = {"joints.mat": "a MATLAB file", "export.zip": "a zip archive", "cvat.xml": "an XML file of CVAT"}
    for name, kind in kinds.items():
        for form in ("coco", "hrnet"):
            with pytest.raises(BadInput, match=f"{name}: this is {kind}"):
                import_file(form, tmp_path / name, images, tmp_path / "out")
    with pytest.raises(BadInput, match="data import hrnet"):
        coco(tmp_path, [hrnet_of_person("a.png")])
    with pytest.raises(BadInput, match="data import coco"):
        hrnet(tmp_path, coco_of_person("a.png"))
    with pytest.raises(BadInput, match="Label Studio"):
        coco(tmp_path, [{"id": 1, "data": {}, "annotations": []}])
    with pytest.raises(BadInput, match="labelme"):
        coco(tmp_path, {"shapes": [], "imagePath": "a.png"})


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({**coco_of_person("a.png"), "annotations": None}, "annotations must be a list"),
        ({**coco_of_person("a.png"), "images": None}, "images must be a list"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_documents_of_odd_shapes_get_one_message(tmp_path: Path, images: Path, document: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        coco(tmp_path, document)


def test_a_test_set_without_labels_says_so(tmp_path: Path, images: Path) -> None:
    record = {key: value for key, value in hrnet_of_person("a.png").items() if not key.startswith("joints")}
    with pytest.raises(BadInput, match="has no labels"):
        hrnet(tmp_path, [record])


def test_a_huge_picture_is_refused_by_its_size(tmp_path: Path, images: Path) -> None:
    Image.new("1", (12000, 10000)).save(images / "panorama.png")
    Image.new("1", (20000, 10000)).save(images / "larger.png")
    for name in ("panorama.png", "larger.png"):
        with pytest.raises(BadInput, match=rf"record 0 \({name}\): image .* (has|is too large)"):
            hrnet(tmp_path, [hrnet_of_person(name)])


@pytest.mark.parametrize("given", ["absent", "null"])
def test_a_person_without_a_box_is_cropped_around_the_labelled_keypoints(tmp_path: Path, images: Path, given: str) -> None:
    document = coco_of_person("a.png", bbox=None)
    if given == "absent":
        del document["annotations"][0]["bbox"]
    tally = ImportTally()
    dataset = coco(tmp_path, document, tally=tally)
    assert (misplaced(dataset), labelled(dataset)) == ([], 17)
    assert tally.lines() == ["1 people without a bbox: cropped around their labelled keypoints"]
