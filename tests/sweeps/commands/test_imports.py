"""`dpsweep data import`: what is asked for, what is said while it runs and at its end."""

import io
import json
from pathlib import Path

import pytest
from painted import coco_of_person, painted_person

from dpcore.data.shards import open_shards
from sweeps.cli import main
from sweeps.terminal import progress


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        painted_person().save(tmp_path / "images" / name)
    document = coco_of_person("a.png", "b.png", "gone.png")
    document["annotations"][1]["iscrowd"] = 1
    (tmp_path / "coco.json").write_text(json.dumps(document))
    return tmp_path


def imported(files: Path, *options: str, form: str = "coco", annotations: str = "coco.json") -> int:
    where = ["--annotations", str(files / annotations), "--images", str(files / "images"), "--out", str(files / "out")]
    return main(["data", "import", form, *where, "--role", "PUBLIC", *options])


def test_the_summary_counts_people_labels_and_what_was_left_out_and_why(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(files, "--skip-broken", "--skeleton", "mpii_16", "--processes", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("out: 1 people, 192×192 px, PUBLIC")
    assert lines[1:6] == [
        "  14 labels of 16 joints (mpii_16)",
        "  2 joints of mpii_16 that the file does not have: upper_neck, head_top",
        "  5 joints of the file that mpii_16 does not have: nose, l_eye, r_eye, l_ear, r_ear",
        "  1 left out: a crowd",
        "  1 left out: broken",
    ]
    assert "gone.png is not there" in lines[6]
    assert open_shards(files / "out").manifest.origin == "coco coco.json, at least 10 keypoints, box_scale 1.25, coco_17 as mpii_16"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--skeleton", "mpii16"), "unknown skeleton mpii16; did you mean mpii_16?"),
        ((), "gone.png is not there"),
        (("--order", "coco"), "unknown skeleton coco; did you mean"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_nothing(
    files: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    assert imported(files, *options) == 2
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in files.iterdir()) == ["coco.json", "images"]


def test_a_folder_of_annotations_is_for_labelme_alone(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(files, annotations="images") == 2
    assert "--annotations takes the file with the keypoints" in capsys.readouterr().err
    assert imported(files, form="labelme", annotations="images") == 2
    assert "no .json file in this folder" in capsys.readouterr().err


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    with progress.shown_progress("people") as show:
        show(3, 7)
        show(7, 7)
        written = terminal.getvalue()
    assert "people" in written


def test_progress_is_a_line_now_and_then_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown_progress("people") as show:
        show(3, 7)
        assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "FIRST_S", 0.0)
    with progress.shown_progress("people") as show:
        show(5, 7)
        show(6, 7)
    assert capsys.readouterr().err == "dpsweep: 5 of 7 people, about 0 s left\n"
