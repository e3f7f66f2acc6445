"""Protected data: a key of their own in their folder, keyed digests outside, and one cohort for one set of people."""

import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpcore.config import Places, SplitConfig
from dpcore.data.caches import describe_dataset, purge_caches
from dpcore.data.cohorts import Members, derived_cohort, overlaps_of
from dpcore.data.dataset_key import KEY_NAME
from dpcore.data.manifest import DatasetHeader, Record
from dpcore.data.shards import ShardSet, open_shards, write_shards
from dpcore.data.synthetic import draw_record, synth
from dpcore.data.views import build_views
from dpcore.errors import Corrupt, Refused, Unavailable
from sweeps import cli

PIXELATE = SplitConfig(name="p", transform="pixelate", cell_px=8)
Write = Callable[..., ShardSet]


def half_size(record: Record) -> Record:
    """The same photograph at another crop size."""
    return replace(record, image=np.ascontiguousarray(record.image[::2, ::2]), keypoints=record.keypoints / 2)


@pytest.fixture
def write(places: Places) -> Write:
    """Writes the first people of a seed as PRIVATE data."""

    def make(name: str, *, count: int = 3, protected: bool = True, size_px: int = 64, **header: Any) -> ShardSet:
        records = [draw_record("private", seed=5, index=index) for index in range(count)]
        shown = [record if size_px == 64 else half_size(record) for record in records]
        header = {"role": "PRIVATE", "protected": protected, "height_px": size_px, "width_px": size_px, "origin": "a test", **header}
        write_shards(places.data_dir / name, shown, header=DatasetHeader(name=name, **header))
        return open_shards(places.data_dir / name)

    return make


def test_the_key_lies_with_the_pictures_for_their_owner_alone(write: Write) -> None:
    folder = write("clinic").folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / KEY_NAME).stat().st_mode) == 0o600
    assert not (write("stand-in", protected=False, cohort=open_shards(folder).members.cohort).folder / KEY_NAME).exists()


def test_what_leaves_the_folder_is_keyed_and_without_the_key_nothing_opens(write: Write) -> None:
    dataset = write("clinic")
    again = write("again", cohort=dataset.members.cohort)
    assert dataset.manifest.digest == again.manifest.digest
    assert len({dataset.manifest.digest, dataset.identity, again.identity}) == 3
    assert open_shards(dataset.folder).identity == dataset.identity
    (dataset.folder / KEY_NAME).chmod(0o644)
    with pytest.raises(Refused, match="mode 0600"):
        open_shards(dataset.folder)
    (dataset.folder / KEY_NAME).unlink()
    with pytest.raises(Unavailable, match="dataset key is not there"):
        open_shards(dataset.folder)


def test_caches_of_protected_data_name_no_plain_digest_and_are_purged_by_their_own(write: Write, places: Places) -> None:
    dataset = write("clinic")
    views = build_views(dataset, PIXELATE, places)
    assert build_views(dataset, PIXELATE, places).digest == views.digest
    (entry,) = describe_dataset("clinic", places).caches
    assert stat.S_IMODE(entry.stat().st_mode) == 0o700
    plain = {dataset.manifest.digest, *dataset.content_hashes, *(file.sha256 for file in dataset.manifest.files)}
    written = "".join(path.read_text() for path in places.cache_dir.rglob("*.json"))
    assert dataset.identity in written
    assert not [digest for digest in plain if digest in written]
    assert entry in purge_caches("clinic", places)


def test_stand_ins_imported_again_at_another_crop_size_are_one_cohort(write: Write) -> None:
    large, small = write("large", protected=False), write("small", protected=False, size_px=32)
    assert large.manifest.digest != small.manifest.digest
    assert large.members.cohort == small.members.cohort
    assert derived_cohort(np.array(["b", "a", "b"])) == derived_cohort(np.array(["a", "b"])) != derived_cohort(np.array(["a"]))


def test_protected_people_are_one_cohort_by_its_name_and_cannot_be_two(write: Write, places: Places) -> None:
    cohort = write("clinic").members.cohort
    with pytest.raises(Refused, match=f"3 photographs of again are also in clinic.*--cohort {cohort}"):
        write("again", size_px=32)
    assert not (places.data_dir / "again").exists()
    assert write("again", size_px=32, cohort=cohort).members.cohort == cohort
    with pytest.raises(Refused, match="2 photographs"):
        write("part", count=2, protected=False)


def test_the_name_that_an_owner_did_not_give_says_nothing_of_the_people(write: Write, places: Places) -> None:
    first = write("clinic").members.cohort
    for path in (places.data_dir / "clinic").iterdir():
        path.unlink()
    (places.data_dir / "clinic").rmdir()
    assert write("clinic").members.cohort != first


def test_stand_ins_that_share_people_are_reported(write: Write, places: Places) -> None:
    write("all", protected=False)
    write("part", protected=False, count=2)
    synth(places.data_dir / "public", "public", count=1, seed=1, role="PUBLIC")
    assert describe_dataset("part", places).shared == {"all": 2}
    assert describe_dataset("public", places).cohort is None


def test_members_of_one_cohort_do_not_overlap_with_themselves() -> None:
    own = Members(dataset="a", protected=True, cohort="c", image_ids=np.array(["x"]))
    assert overlaps_of(own, [replace(own, dataset="b")]) == ()


def test_protected_data_without_a_cohort_are_corrupt(write: Write) -> None:
    folder = write("clinic").folder
    path = folder / "manifest.json"
    path.write_text("".join(line for line in path.read_text().splitlines() if '"cohort"' not in line))
    with pytest.raises(Corrupt, match="without a cohort"):
        open_shards(folder)


def test_the_import_command_names_a_cohort_for_private_people_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (120, 90)).save(images / "a.png")
    record = {"image": "a.png", "center": [50, 40], "scale": 0.32, "joints": [[60, 45]] * 16, "joints_vis": [1] * 16}
    (tmp_path / "a.json").write_text(json.dumps([record]))
    command = ["data", "import", "hrnet", "--annotations", str(tmp_path / "a.json"), "--images", str(images), "--zero-based"]
    assert cli.main([*command, "--role", "PRIVATE", "--cohort", "ward-3", "--out", str(tmp_path / "data" / "large")]) == 0
    assert "protected, cohort ward-3" in capsys.readouterr().out
    small = ["--height", "64", "--width", "64", "--role", "PRIVATE", "--out", str(tmp_path / "data" / "small")]
    assert cli.main([*command, *small]) == 2
    assert "--cohort ward-3" in capsys.readouterr().err
    assert cli.main([*command, *small, "--cohort", "ward-3"]) == 0
    assert cli.main([*command, "--role", "PUBLIC", "--cohort", "ward-3", "--out", str(tmp_path / "data" / "public")]) == 2
    assert "has no cohort" in capsys.readouterr().err
