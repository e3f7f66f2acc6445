"""Files of other formats are known by name, and each message says what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from dpcore.data.formats import IMPORTERS
from dpcore.errors import BadInput
from dpcore.importers.documents import load_json, read_content
from dpcore.importers.foreign import FOREIGN_DOCUMENTS, FOREIGN_FILES, refuse_foreign_file

FILES = [
    ("a.mat", b"MATLAB 7.3 MAT-file", "a MATLAB 7.3 file"),
    ("a.mat", b"MATLAB 5.0 MAT-file", "a MATLAB file"),
    ("CollectedData_me.h5", b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    ("a.npz", b"PK\x03\x04", "a NumPy archive"),
    ("a.zip", b"PK\x03\x04", "a zip archive"),
    ("a.tar.gz", b"\x1f\x8b\x08", "a packed archive"),
    ("a.npy", b"\x93NUMPY\x01", "a NumPy array"),
    ("a.parquet", b"PAR1", "a Parquet table"),
    ("a.db", b"SQLite format 3\x00", "an SQLite database"),
    ("train-00000.tfrecord", b"\x01\x02", "a TFRecord file"),
    ("a.pkl", b"\x80\x04", "a pickle"),
    ("a.jpg", b"\xff\xd8\xff\xe0", "a picture"),
    ("a.json", b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
    ("a.xml", b"<?xml?><annotations><track id='0'>", "an annotation of CVAT for video"),
    ("a.xml", b"\xef\xbb\xbf<?xml?>\n<annotations><image>", "an XML file of CVAT"),
    ("a.xml", b"<annotation><object>", "an XML file of Pascal VOC"),
    ("a.json", b"\n<!DOCTYPE html><html>", "a web page"),
    ("a.xml", b"<dataset>", "an XML file"),
    ("via.csv", b"filename,file_size,region_shape_attributes", "a CSV file of the VGG Image Annotator"),
    ("dlc.csv", b"scorer,me,me\nbodyparts,nose,nose", "a CSV file of DeepLabCut"),
    ("a.csv", b"x,y\n1,2", "a table"),
    ("a.pts", b"version: 1", "a file of points"),
    ("a.txt", b"0 .5 .5", "a label file of YOLO"),
    ("data.yaml", b"kpt_shape: [17, 3]", "a YAML file"),
]
DOCUMENTS: list[tuple[Any, str]] = [
    ([{"image": "a", "joints": []}], "a list as HRNet's"),
    ([{"image": "a", "center": [1, 2], "scale": 1}], "a list as HRNet's"),
    ({"images": [], "annotations": []}, "COCO's form"),
    ([{"data": {}, "annotations": []}], "an export of Label Studio"),
    ([{"image": "a", "kp": [{"x": 1, "keypointlabels": ["nose"]}]}], r"a short export of Label Studio \(JSON-MIN\)"),
    ({"shapes": [], "imagePath": "a"}, "a file of labelme"),
    ({"_via_settings": {}, "_via_img_metadata": {}}, "a project of the VGG Image Annotator"),
    ({"a.png123": {"filename": "a.png", "regions": []}}, "an annotation of the VGG Image Annotator"),
    ({"version": 1.3, "people": []}, "an estimate of OpenPose"),
    ([{"image_id": "a", "keypoint_annotations": {}}], "AI Challenger's own form"),
    ([{"image_id": 1, "keypoints": [1], "score": 0.5}], "a list of estimated keypoints"),
    ([{"image_id": 1, "bbox": [1], "score": 0.5}], "a list of detected boxes"),
    ({"annolist": []}, "an annotation of PoseTrack 2017"),
    ({"objects": [], "size": {}}, "an annotation of Supervisely"),
    ({"items": [], "categories": {}}, "an export of Datumaro"),
    ({"item": {}, "annotations": []}, "an export of V7 Darwin"),
    ([{"data_row": {}}], "an export of Labelbox"),
]


@pytest.mark.parametrize(("name", "content", "kind"), FILES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_file_is_named_by_its_first_bytes_or_its_name(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=rf"{name}: this is {kind}.*; \w+"):
        load_json(tmp_path / name, wanted="nothing")


@pytest.mark.parametrize(("document", "kind"), DOCUMENTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_document_is_named_by_its_keys(tmp_path: Path, document: Any, kind: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    with pytest.raises(BadInput, match=rf"a\.json: this is {kind}.*; "):
        load_json(path, wanted="nothing")


def test_every_kind_has_an_example_and_every_format_that_reads_one_exists() -> None:
    assert {kind for *_, kind in FILES} == {entry.kind.partition(" (")[0] for entry in FOREIGN_FILES} - {
        "an annotation of CVAT for video"
    } | {"an annotation of CVAT for video"}
    assert len({kind for _, kind in DOCUMENTS}) == len(FOREIGN_DOCUMENTS)
    named = {form for entry in (*FOREIGN_FILES, *FOREIGN_DOCUMENTS) for form in entry.formats}
    assert named <= set(IMPORTERS.own)


def test_a_format_is_not_foreign_to_itself(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    refuse_foreign_file(tmp_path / "a.mat", read_content(tmp_path / "a.mat"), wanted="mpii")
    (tmp_path / "a.json").write_text('{"images": [], "annotations": []}')
    assert load_json(tmp_path / "a.json", wanted="coco") == {"images": [], "annotations": []}


def test_lines_of_json_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"image": "a"}\n{"image": "b"}\n')
    with pytest.raises(BadInput, match=r"one JSON document a line \(JSONL\)"):
        load_json(tmp_path / "a.jsonl", wanted="hrnet")
