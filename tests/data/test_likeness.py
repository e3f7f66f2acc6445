"""Photographs that were saved or scaled again are reported; other people are not."""

import io
import stat
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dpcore.config import Places
from dpcore.data.caches import purge_caches
from dpcore.data.likeness import difference_hashes, likeness_of
from dpcore.data.manifest import DatasetHeader, Record
from dpcore.data.shards import ShardSet, open_shards, write_shards
from dpcore.data.synthetic import draw_record


def as_jpeg(record: Record) -> Record:
    file = io.BytesIO()
    Image.fromarray(record.image).save(file, "JPEG", quality=60)
    return replace(record, image=np.array(Image.open(file)))


def scaled(record: Record) -> Record:
    return replace(record, image=np.array(Image.fromarray(record.image).resize((40, 40)).resize((64, 64))))


@pytest.fixture
def write(places: Places) -> Callable[..., ShardSet]:
    def make(name: str, records: list[Record], *, protected: bool = False) -> ShardSet:
        role = "PRIVATE" if protected else "PUBLIC"
        header = DatasetHeader(name=name, role=role, protected=protected, height_px=64, width_px=64, origin="a test")  # type: ignore[arg-type]
        write_shards(places.data_dir / name, records, header=header)
        return open_shards(places.data_dir / name)

    return make


def people(seed: int, count: int = 20) -> list[Record]:
    return [draw_record("private", seed=seed, index=index) for index in range(count)]


def test_what_was_saved_or_scaled_again_is_reported_and_other_people_are_not(write: Callable[..., ShardSet], places: Places) -> None:
    private = write("clinic", people(1), protected=True)
    copies = [as_jpeg(people(1)[3]), scaled(people(1)[7])]
    public = write("public", [*people(2), *copies])
    assert not set(private.content_hashes) & set(public.content_hashes)
    found = likeness_of(public, private, places)
    assert found is not None
    assert found.text.startswith(f"2 pictures of public look like pictures of clinic (the first is {copies[0].source_id})")
    assert likeness_of(write("others", people(2)), private, places) is None


def test_hashes_of_private_pictures_are_cached_for_their_owner_and_purged_with_them(write: Callable[..., ShardSet], places: Places) -> None:
    private, public = write("clinic", people(1), protected=True), write("public", people(2))
    likeness_of(public, private, places)
    assert likeness_of(public, private, places) is None
    folders = [path for path in (places.cache_dir / "likeness").iterdir() if path.is_dir()]
    assert sorted(stat.S_IMODE(path.stat().st_mode) for path in folders) == [0o700, 0o755]
    purge_caches("clinic", places)
    assert len([path for path in folders if path.exists()]) == 1


def with_bars(record: Record, *, of_px: int, downwards: bool) -> Record:
    """What a crop is whose photograph ends within it: black beyond."""
    image = np.zeros_like(record.image)
    size = (64, 64 - 2 * of_px) if downwards else (64 - 2 * of_px, 64)
    inner = np.array(Image.fromarray(record.image).resize(size))
    image[of_px:-of_px] = inner if downwards else image[of_px:-of_px]
    if not downwards:
        image[:, of_px:-of_px] = inner
    return replace(record, image=image)


@pytest.mark.parametrize("downwards", [True, False])
def test_bars_that_two_crops_share_make_them_no_look_alikes(write: Callable[..., ShardSet], places: Places, downwards: bool) -> None:
    """At 64 px the bars of half a crop are most of its cells: 44 of 500 LSPET people looked like others by them."""
    private = write("clinic", [with_bars(one, of_px=24, downwards=downwards) for one in people(1)], protected=True)
    strangers = [with_bars(one, of_px=24, downwards=downwards) for one in people(2)]
    assert likeness_of(write("others", strangers), private, places) is None
    copies = [as_jpeg(with_bars(people(1)[3], of_px=24, downwards=downwards))]
    found = likeness_of(write("public", [*strangers, *copies]), private, places)
    assert found is not None
    assert found.alike == 1


def test_pictures_that_agree_across_and_not_downwards_do_not_look_alike(write: Callable[..., ShardSet], places: Places) -> None:
    """Rows with the same steps to the right, lighter from row to row in one picture and darker in the other."""
    across, down = np.linspace(60, 120, 64)[None, :], np.linspace(0, 120, 64)[:, None]
    one, other = (np.repeat((across + part).astype(np.uint8)[..., None], 3, axis=2) for part in (down, down[::-1]))
    record = draw_record("public", seed=1, index=0)
    private, public = write("clinic", [replace(record, image=one)], protected=True), write("public", [replace(record, image=other)])
    hashes = difference_hashes(private), difference_hashes(public)
    assert hashes[0][0, 0] == hashes[1][0, 0]
    assert likeness_of(public, private, places) is None


def test_a_crop_that_is_all_black_has_a_hash(write: Callable[..., ShardSet]) -> None:
    assert difference_hashes(write("night", [replace(people(1)[0], image=np.zeros((64, 64, 3), np.uint8))])).tolist() == [[0, 0]]


def test_each_bit_says_whether_it_gets_lighter_to_the_right(write: Callable[..., ShardSet]) -> None:
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    records = [replace(draw_record("public", seed=1, index=0), image=np.ascontiguousarray(one)) for one in (ramp, ramp[:, ::-1])]
    assert difference_hashes(write("ramps", records)).tolist() == [[2**64 - 1, 0], [0, 0]]
