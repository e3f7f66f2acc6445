"""An import is the same, byte for byte, in any number of processes and over any interruption; mistakes come together."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from dotted import DOT, photograph_with_dot
from imported import import_file

from dpcore.data.shards import open_shards
from dpcore.errors import BadInput, Refused
from dpcore.importers import importing, pieces
from dpcore.importers.label_checks import ImportTally

SIZE = {"height_px": 64, "width_px": 64}
PEOPLE = 13


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three people to a piece: five pieces, the last one with one person."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 3 * 64 * 64 * 3)


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    records = []
    for row in range(PEOPLE):
        photograph_with_dot(tmp_path / "images", f"{row}.png")
        records.append({"image": f"{row}.png", "center": [50 + row / 7, 40], "scale": 0.32, "joints": [DOT] * 16, "joints_vis": [1] * 16})
    path = tmp_path / "a.json"
    path.write_text(json.dumps(records))
    return path


def imported(annotations: Path, out: str = "out", **options: Any) -> Path:
    folder = annotations.parent / out
    import_file("hrnet", annotations, annotations.parent / "images", folder, **{**SIZE, **options})
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def broken_off(annotations: Path, monkeypatch: pytest.MonkeyPatch, *, after: int) -> Path:
    """The hidden folder that an import leaves which is interrupted after some pieces."""
    make = pieces.make_piece
    made: list[int] = []

    def interrupted(piece: pieces.Piece) -> pieces.PieceNote:
        if len(made) == after:
            raise KeyboardInterrupt
        made.append(piece.number)
        return make(piece)

    with monkeypatch.context() as patched:
        patched.setattr(pieces, "make_piece", interrupted)
        with pytest.raises(KeyboardInterrupt):
            imported(annotations)
    return annotations.parent / ".out-unfinished.tmp"


def test_the_number_of_processes_changes_no_byte(annotations: Path) -> None:
    assert contents(imported(annotations, "one")) == contents(imported(annotations, "two", processes=2))


def test_people_keep_their_order_and_their_units(annotations: Path) -> None:
    dataset = open_shards(imported(annotations))
    assert dataset.person_ids.tolist() == [f"{row}.png#{row}" for row in range(PEOPLE)]
    assert [entry.rows for entry in dataset.manifest.files] == [3, 3, 3, 3, 1]


def test_progress_counts_people(annotations: Path) -> None:
    heard: list[tuple[int, int]] = []
    imported(annotations, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(3, 13), (6, 13), (9, 13), (12, 13), (13, 13)]


def test_an_interrupted_import_goes_on_and_makes_only_what_is_missing(annotations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = contents(imported(annotations, "whole"))
    left = broken_off(annotations, monkeypatch, after=2)
    assert stat.S_IMODE(left.stat().st_mode) == 0o700
    made: list[int] = []
    make = pieces.make_piece
    monkeypatch.setattr(pieces, "make_piece", lambda piece: (made.append(piece.number), make(piece))[1])
    assert contents(imported(annotations)) == whole
    assert made == [2, 3, 4]
    assert not left.exists()


@pytest.mark.parametrize("change", ["bytes", "picture", "label", "margin", "note"])
def test_a_piece_of_something_else_is_made_again(annotations: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    left = broken_off(annotations, monkeypatch, after=2)
    options: dict[str, Any] = {"box_scale": 1.5} if change == "margin" else {}
    if change == "bytes":
        shard = left / "shard-00000.arrow"
        shard.write_bytes(shard.read_bytes().replace(b"\xff", b"\xfe", 1))
    if change == "picture":
        os.utime(annotations.parent / "images" / "1.png", ns=(1, 1))
    if change == "label":
        records = json.loads(annotations.read_text())
        records[1]["joints"][3] = [61, 46]
        annotations.write_text(json.dumps(records))
    if change == "note":
        (left / "shard-00000.note.json").write_text("{")
    whole = contents(imported(annotations, "whole", **options))
    assert contents(imported(annotations, **options)) == whole


def test_an_error_leaves_nothing_behind(annotations: Path) -> None:
    (annotations.parent / "images" / "7.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(BadInput, match=r"record 7 \(7\.png\): image .*7\.png cannot be read \(a Git LFS pointer: fetch"):
        imported(annotations)
    assert sorted(path.name for path in annotations.parent.iterdir()) == ["a.json", "images"]


def test_two_imports_into_one_folder_do_not_disturb_each_other(annotations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(done: int, total: int) -> None:
        with pytest.raises(Refused, match="another process is making it"):
            imported(annotations)

    assert len(open_shards(imported(annotations, progress=second))) == PEOPLE


def test_all_missing_pictures_are_named_before_one_is_read(annotations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for row in range(1, PEOPLE):
        (annotations.parent / "images" / f"{row}.png").unlink()
    monkeypatch.setattr(importing, "make_pieces", lambda *args, **keywords: pytest.fail("a picture was read"))
    with pytest.raises(BadInput, match=r"12 pictures are not there") as caught:
        imported(annotations)
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[1].count("1.png"), lines[-1]) == (12, 2, "  and 2 more")


def test_wrong_records_come_together_and_are_left_out_where_that_is_asked_for(annotations: Path) -> None:
    records = json.loads(annotations.read_text())
    records[2]["scale"] = -1
    records[5]["joints_vis"] = [1]
    records[9]["scale"] = 400
    (annotations.parent / "images" / "12.png").unlink()
    annotations.write_text(json.dumps(records))
    with pytest.raises(BadInput, match="2 records are wrong; mend them, or leave them out with --skip-broken"):
        imported(annotations)
    tally = ImportTally()
    dataset = open_shards(imported(annotations, skip_broken=True, tally=tally))
    assert dataset.image_ids.tolist() == [f"{row}.png" for row in range(PEOPLE) if row not in (2, 5, 9, 12)]
    assert (tally.broken, tally.labels, len(tally.examples)) == (4, 9 * 16, 4)
    assert tally.lines()[0] == "4 left out: broken"


def test_a_picture_with_several_people_is_read_once(annotations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dpcore.importers import cutting

    records = json.loads(annotations.read_text())[:3]
    records[2]["image"] = "0.png"
    annotations.write_text(json.dumps(records))
    read: list[str] = []
    load = cutting.load_photograph
    monkeypatch.setattr(cutting, "load_photograph", lambda path, **keywords: (read.append(path.name), load(path, **keywords))[1])
    assert open_shards(imported(annotations)).image_ids.tolist() == ["0.png", "1.png", "0.png"]
    assert read == ["0.png", "1.png"]


def test_a_head_size_that_does_not_fit_the_head_is_counted(annotations: Path) -> None:
    records = json.loads(annotations.read_text())
    for row, size in enumerate((3.0, 4.0, 14.0, 16.0)):
        joints = [list(DOT) for _ in range(16)]
        joints[8] = [DOT[0], DOT[1] + 10]
        records[row] |= {"joints": joints, "head_size": size}
    annotations.write_text(json.dumps(records))
    tally = ImportTally()
    imported(annotations, tally=tally)
    assert tally.lines() == ["2 head sizes far from the labelled head: less than 0.35 or more than 1.5 of it"]


def test_joints_that_a_mapping_lacks_or_drops_are_named(annotations: Path) -> None:
    tally = ImportTally()
    dataset = open_shards(imported(annotations, skeleton="coco_17", tally=tally))
    assert dataset.skeleton.name == "coco_17"
    assert tally.lines() == [
        "5 joints of coco_17 that the file does not have: nose, l_eye, r_eye, l_ear, r_ear",
        "4 joints of the file that coco_17 does not have: pelvis, thorax, upper_neck, head_top",
    ]
    with pytest.raises(BadInput, match="no joint of the skeleton hand_21"):
        imported(annotations, "other", skeleton="hand_21")
