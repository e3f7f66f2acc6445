"""Purging removes what derives from a dataset, and what does not say where it comes from."""

import json
from pathlib import Path

import pytest

from dpcore.config import Places, SplitConfig
from dpcore.data.caches import describe_dataset, purge_caches
from dpcore.data.catalog import open_dataset
from dpcore.data.folders import cached_folder
from dpcore.data.synthetic import EMBEDDED, Embedded, synth
from dpcore.data.views import build_views
from dpcore.errors import BadInput

BLUR = SplitConfig(name="blur", transform="gaussian_blur", sigma_px=3)


def test_purge_removes_the_datasets_own_caches_and_keeps_others(places: Places) -> None:
    for number, name in enumerate(("a", "b")):
        synth(places.data_dir / name, "private", count=2, seed=number, role="PRIVATE")
        build_views(open_dataset(name, places), BLUR, places)
    for entry, meta in (("silent", {"steps": 3}), ("foreign", {"datasets": ["another"]})):
        folder = places.cache_dir / "stages" / entry
        folder.mkdir(parents=True)
        (folder / "meta.json").write_text(json.dumps(meta))
    (places.cache_dir / "features" / "unmarked").mkdir(parents=True)
    (places.cache_dir / "views" / ".x-1.tmp").mkdir()
    caches = describe_dataset("a", places).caches
    removed = purge_caches("a", places)
    assert [path.name for path in removed if path.parent.name != "views"] == ["unmarked", "silent"]
    assert set(caches) <= set(removed)
    assert len(describe_dataset("b", places).caches) == 1
    assert (places.cache_dir / "stages" / "foreign").is_dir()
    assert not (places.cache_dir / "views" / ".x-1.tmp").exists()
    assert (places.data_dir / "a").is_dir()


def test_purging_everything_removes_embedded_datasets_too(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EMBEDDED, "synthetic/private", Embedded(domain="private", count=2, seed=2, role="PRIVATE"))
    dataset = open_dataset("synthetic/private", places)
    build_views(dataset, BLUR, places)
    assert len(purge_caches(None, places)) == 2
    assert not dataset.folder.exists()
    assert purge_caches("synthetic/private", places) == []


def test_description_counts_people_and_labels(places: Places) -> None:
    synth(places.data_dir / "a", "public", count=4, seed=1, role="PUBLIC")
    info = describe_dataset("a", places)
    assert (info.count, info.images, info.role, info.protected) == (4, 4, "PUBLIC", False)
    assert info.median_head_size_px is not None
    assert json.dumps(info.document(), allow_nan=False)
    with pytest.raises(BadInput, match="no folder"):
        describe_dataset("c", places)


@pytest.mark.parametrize("damage", ["cut", "flip", "lost", "sums"])
def test_a_cache_entry_whose_bytes_are_not_those_that_were_written_is_made_anew_and_said(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Path] = []

    def build(folder: Path) -> None:
        made.append(folder)
        (folder / "a.bin").write_bytes(bytes(range(256)))

    target = tmp_path / "stages" / "k"
    assert cached_folder(target, build, private=False) == cached_folder(target, build, private=False) == target
    assert len(made) == 1
    content = (target / "a.bin").read_bytes()
    if damage == "sums":
        (target / "sums.json").write_text("{")
    elif damage == "lost":
        (target / "a.bin").unlink()
    else:
        (target / "a.bin").write_bytes(content[:100] if damage == "cut" else content[:-1] + b"\0")
    cached_folder(target, build, private=False)
    assert len(made) == 2
    assert (target / "a.bin").read_bytes() == content
    assert f"{target} is damaged and is made anew" in capsys.readouterr().err


def test_an_entry_of_an_earlier_version_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    cached_folder(tmp_path / "k", lambda folder: pytest.fail("made anew"), private=False)
