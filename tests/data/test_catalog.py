"""Names become datasets, and roles are held."""

import json
from pathlib import Path

import numpy as np
import pytest

from dpcore.config import Places
from dpcore.data import catalog
from dpcore.data.catalog import check_crops, check_roles, check_unit, open_dataset, unit_ids
from dpcore.data.manifest import MANIFEST_NAME, DatasetHeader, Record
from dpcore.data.shards import ShardSet, open_shards, write_shards
from dpcore.data.synthetic import EMBEDDED, Embedded, draw_record, synth
from dpcore.errors import BadInput, Refused


def test_an_embedded_dataset_is_made_once_and_then_opened(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Embedded(domain="private", count=3, seed=2, role="PRIVATE")
    monkeypatch.setitem(EMBEDDED, "synthetic/private", small)
    first = open_dataset("synthetic/private", places)
    monkeypatch.setattr(catalog, "synth", None)
    again = open_dataset("synthetic/private", places)
    assert first.folder == again.folder
    assert first.folder.is_relative_to(places.cache_dir)
    assert (again.manifest.name, again.manifest.role, len(again)) == ("synthetic/private", "PRIVATE", 3)


def test_embedded_sizes_and_roles_are_the_agreed_ones() -> None:
    sizes = {name: (spec.domain, spec.count, spec.role) for name, spec in EMBEDDED.items()}
    assert sizes == {
        "synthetic/public": ("public", 2000, "PUBLIC"),
        "synthetic/private": ("private", 4000, "PRIVATE"),
        "synthetic/proxy": ("public", 2000, "PUBLIC"),
        "synthetic/validation": ("private", 500, "PUBLIC"),
    }
    assert len({spec.seed for spec in EMBEDDED.values()}) == len(EMBEDDED)


def test_a_name_is_a_folder_below_the_data_directory_or_an_absolute_path(places: Places) -> None:
    synth(places.data_dir / "mine", "public", count=2, seed=0, role="PUBLIC")
    assert len(open_dataset("mine", places)) == 2
    assert len(open_dataset(str(places.data_dir / "mine"), places)) == 2


@pytest.mark.parametrize(("name", "said"), [("lspet/train", "dpsweep data import"), ("synthetic/privat", "did you mean synthetic/private")])
def test_an_unknown_name_says_what_to_do(places: Places, name: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        open_dataset(name, places)


def test_roles_are_held(tmp_path: Path) -> None:
    synth(tmp_path / "private", "private", count=3, seed=0, role="PRIVATE")
    synth(tmp_path / "public", "public", count=3, seed=0, role="PUBLIC")
    synth(tmp_path / "validation", "private", count=3, seed=1, role="PUBLIC")
    private, public, validation = (open_shards(tmp_path / name) for name in ("private", "public", "validation"))
    check_roles(private, public, validation)
    for wrong, place in (((public, public, validation), "private"), ((private, private, validation), "public")):
        with pytest.raises(Refused, match=f"data.{place}: .*is needed"):
            check_roles(*wrong)
    with pytest.raises(Refused, match=r"data\.validation: .*PUBLIC is needed"):
        check_roles(private, public, private)


def test_a_private_crop_in_public_data_is_refused_and_named(tmp_path: Path) -> None:
    synth(tmp_path / "private", "private", count=4, seed=0, role="PRIVATE")
    synth(tmp_path / "leak", "private", count=2, seed=0, role="PUBLIC")
    synth(tmp_path / "public", "public", count=3, seed=0, role="PUBLIC")
    private, leak, public = (open_shards(tmp_path / name) for name in ("private", "leak", "public"))
    assert draw_record("private", seed=0, index=0).content_hash in leak.content_hashes
    with pytest.raises(Refused, match=r"data\.validation: 2 crops of leak are also in the private private .*private-0-00000"):
        check_roles(private, public, leak)
    with pytest.raises(Refused, match=r"data\.public"):
        check_roles(private, leak, public)


def test_a_dataset_cut_from_labels_cannot_keep_them_private(tmp_path: Path) -> None:
    header = synth(tmp_path / "whole", "private", count=1, seed=0, role="PRIVATE").header
    check_crops(open_shards(tmp_path / "whole"))
    for crops in ("detector", "labels"):
        changed = DatasetHeader(**{**header.model_dump(), "crops": crops})
        write_shards(tmp_path / crops, [draw_record("private", seed=0, index=0)], header=changed)
    check_crops(open_shards(tmp_path / "detector"))
    with pytest.raises(Refused, match="--crops detector"):
        check_crops(open_shards(tmp_path / "labels"))


def test_a_manifest_that_does_not_say_was_cut_from_labels(tmp_path: Path) -> None:
    synth(tmp_path / "old", "private", count=1, seed=0, role="PRIVATE")
    path = tmp_path / "old" / MANIFEST_NAME
    manifest = json.loads(path.read_text())
    del manifest["crops"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(Refused, match="cut from annotations"):
        check_crops(open_shards(tmp_path / "old"))


Box = tuple[float, float, float, float]


def crops(folder: Path, *rows: tuple[str, str, str, Box | None]) -> ShardSet:
    """A dataset of (person, image, video, box) rows."""
    header = DatasetHeader(name="crops", role="PRIVATE", protected=False, height_px=8, width_px=8, origin="made for a test")
    nothing = np.zeros((16, 2))
    records = (
        Record(
            image=np.full((8, 8, 3), number, dtype=np.uint8),
            keypoints=nothing,
            visible=np.zeros(16, dtype=bool),
            head_size_px=1.0,
            person_id=person,
            image_id=photograph,
            video_id=video,
            source_id=f"record {number}",
            box_px=box,
        )
        for number, (person, photograph, video, box) in enumerate(rows)
    )
    write_shards(folder, records, header=header)
    return open_shards(folder)


LEFT, RIGHT, MIDDLE = (0.0, 0.0, 10.0, 10.0), (10.0, 0.0, 20.0, 10.0), (5.0, 5.0, 15.0, 15.0)


def test_people_whose_crops_share_no_pixel_are_units_of_their_own(tmp_path: Path) -> None:
    apart = crops(tmp_path / "apart", ("p", "i", "", LEFT), ("q", "i", "", RIGHT), ("r", "j", "", LEFT), ("s", "k", "", None))
    check_unit(apart, "person")
    assert unit_ids(apart, "person").tolist() == ["p", "q", "r", "s"]
    assert unit_ids(apart, "image").tolist() == ["i", "i", "j", "k"]


def test_overlapping_crops_of_two_people_are_refused_as_people_and_named(tmp_path: Path) -> None:
    overlapping = crops(tmp_path / "d", ("p", "i", "", LEFT), ("q", "i", "", RIGHT), ("r", "i", "", MIDDLE))
    with pytest.raises(Refused, match=r"privacy_unit person: crops, image i, with 3 crops: the crops of record 0 and record 2 overlap"):
        check_unit(overlapping, "person")
    check_unit(overlapping, "image")


def test_crops_of_unknown_place_in_one_image_are_refused_as_people(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="the positions of the crops are unknown"):
        check_unit(crops(tmp_path / "d", ("p", "i", "", LEFT), ("q", "i", "", None)), "person")


def test_two_crops_of_one_person_may_overlap(tmp_path: Path) -> None:
    check_unit(crops(tmp_path / "d", ("p", "i", "", LEFT), ("p", "i", "", MIDDLE)), "person")


def test_a_video_needs_its_name_in_every_crop(tmp_path: Path) -> None:
    check_unit(crops(tmp_path / "named", ("p", "i", "v", None), ("q", "j", "v", None)), "video")
    with pytest.raises(Refused, match="privacy_unit video: 1 of the 2 crops of crops name no video"):
        check_unit(crops(tmp_path / "half", ("p", "i", "v", None), ("q", "j", "", None)), "video")
