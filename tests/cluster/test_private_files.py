"""A dataset, a sweep, a cache and whatever is for its owner alone stay here, whatever their folder is called."""

import os
import subprocess
from pathlib import Path

import pytest

from dpcore.data.manifest import DatasetHeader
from dpcore.data.shards import write_shards
from dpcore.data.synthetic import draw_record
from dpcore.errors import BadInput
from sweeps.remote.working_dir import WorkingDir, find_working_dir

WANTED = {"space.yaml", "code/loss.py"}


def write(folder: Path, *names: str, mode: int = 0o644) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(mode)


def sent(folder: Path) -> set[str]:
    return {path.as_posix() for path in find_working_dir(folder).files}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder; open to all, as under umask 000."""
    tmp_path.chmod(0o755)
    write(tmp_path, *WANTED)
    return tmp_path


def in_git(folder: Path, *tracked: str) -> None:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "add", "-f", "--", *tracked], check=True)


@pytest.mark.parametrize("git", [False, True], ids=["plain", "git"])
@pytest.mark.parametrize("mode", [0o700, 0o777], ids=oct)
def test_a_real_dataset_stays_under_any_name_and_mode(folder: Path, git: bool, mode: int) -> None:
    header = DatasetHeader(name="patients", role="PRIVATE", protected=True, height_px=64, width_px=64, origin="hrnet people.json")
    write_shards(folder / "study" / "patients", [draw_record("private", seed=4, index=0)], header=header)
    (folder / "study" / "patients").chmod(mode)
    for path in (folder / "study" / "patients").iterdir():
        path.chmod(mode & 0o666)
    if git:
        in_git(folder, "study/patients/manifest.json", *WANTED)
    assert sent(folder) == WANTED
    assert (folder / "study" / "patients" / "manifest.json").is_file()


@pytest.mark.parametrize(
    "marked",
    [
        ("runs/ledger.sqlite", "runs/s/report/report.md", "runs/notes.txt"),
        ("s2/spec.json", "s2/report/report.md", "s2/checkpoints/e2-000/result.txt"),
        ("old/study.journal", "old/table.md"),
        ("e2-000/trial.json", "e2-000/reports.txt"),
        ("final/train.json", "final/claim.json"),
        ("winner/model.json", "winner/claim.json"),
        ("cache2/views/ab/meta.json", "cache2/views/ab/pixels.bin"),
        ("here/.dpsweep/x.txt",),
        ("half/part.arrow", "half/notes.txt"),
    ],
    ids=lambda marked: marked[0],
)
def test_what_dpsweep_made_stays_with_all_that_lies_in_it(folder: Path, marked: tuple[str, ...]) -> None:
    write(folder, *marked)
    in_git(folder, *WANTED)
    assert sent(folder) == WANTED


def test_what_is_for_its_owner_alone_stays_and_so_does_all_in_such_a_folder(folder: Path) -> None:
    write(folder, "notes/patients.csv", mode=0o600)
    write(folder, "ward/plan.txt")
    (folder / "ward").chmod(0o700)
    in_git(folder, "notes/patients.csv", "ward/plan.txt", *WANTED)
    found = find_working_dir(folder)
    assert {path.as_posix() for path in found.files} == WANTED
    assert found.stays == ("ward (for its owner alone)", "2 for their owner alone (mode 0600 or 0700)")


def test_pictures_and_arrays_go_only_where_git_tracks_them(folder: Path) -> None:
    write(folder, "a/photo.JPG", "b/figure.png", "c/joints.npz", "d/people.zip", "e/clip.mp4", "f/scan.dcm")
    assert sent(folder) == WANTED
    in_git(folder, "b/figure.png", *WANTED)
    found = find_working_dir(folder)
    assert {path.as_posix() for path in found.files} == {*WANTED, "b/figure.png"}
    assert found.stays == ("5 pictures, videos, arrays and archives that git does not track",)


def test_a_link_takes_nothing_along_that_would_stay_itself(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("clinic")
    write(outside, "people.txt")
    write(folder, "code/private.txt", mode=0o600)
    (folder / "notes.txt").symlink_to(outside / "people.txt")
    (folder / "again.txt").symlink_to(folder / "code" / "private.txt")
    (folder / "loss.py").symlink_to(folder / "code" / "loss.py")
    assert sent(folder) == {*WANTED, "loss.py"}


def test_a_name_in_another_encoding_is_no_traceback(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/gr\xfc\xdfe.txt"))).write_text("x")
    in_git(folder, *WANTED)
    found = find_working_dir(folder)
    assert len(found.files) == 3
    found.pack(folder / "code" / "a.zip")


def test_a_folder_of_which_everything_stays_says_what(tmp_path: Path) -> None:
    write(tmp_path, "space.yaml", mode=0o600)
    with pytest.raises(BadInput, match="1 for their owner alone"):
        find_working_dir(tmp_path)
    assert WorkingDir(folder=tmp_path, files=()).stays == ()
