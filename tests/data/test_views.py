"""Public views: the stored bytes are all there is, they hide what the split promises, they are built once."""

import json
import stat
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from dpcore.config import Places, SplitConfig
from dpcore.data import views
from dpcore.data.shards import ShardSet, open_shards, write_shards
from dpcore.data.splitting import blurred, decode_view, deconvolve, encode_view
from dpcore.data.synthetic import draw_record, synth
from dpcore.data.views import build_views, check_join
from dpcore.errors import Corrupt, Refused

BLUR = SplitConfig(name="blur", transform="gaussian_blur", sigma_px=3)
SHARP = BLUR.model_copy(update={"name": "sharp", "sharpen": "wiener"})
PIXELATE = SplitConfig(name="pixels", transform="pixelate", cell_px=8)
DOWNSAMPLE = SplitConfig(name="small", transform="downsample", factor=5)
HEAD = SplitConfig(name="head", transform="pixelate", cell_px=8, region="head")


@pytest.fixture
def people(places: Places) -> ShardSet:
    synth(places.data_dir / "people", "private", count=12, seed=0, role="PRIVATE")
    return open_shards(places.data_dir / "people")


def psnr(one: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], two: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - two) ** 2)))


@pytest.mark.parametrize(("split", "stored"), [(BLUR, (22, 22)), (PIXELATE, (8, 8)), (DOWNSAMPLE, (13, 13)), (HEAD, (64, 64))])
def test_views_have_the_crops_shape_and_store_few_bytes(
    people: ShardSet, places: Places, split: SplitConfig, stored: tuple[int, int]
) -> None:
    built = build_views(people, split, places)
    assert built.stored.shape == (12, *stored, 3)
    assert built.stored.dtype == np.uint8
    assert built.images(np.array([3, 1])).shape == (2, 64, 64, 3)
    assert len(built) == 12


def test_a_view_is_a_function_of_the_stored_bytes_alone(people: ShardSet, places: Places) -> None:
    """Two crops with the same bytes after ψ have the same view, whatever their private pixels were."""
    built = build_views(people, SHARP, places)
    again = decode_view(np.array(built.stored[:4]), SHARP, size_px=(64, 64))
    np.testing.assert_array_equal(built.images(np.arange(4)), again)


def test_pixels_outside_the_stored_bytes_never_reach_a_view(people: ShardSet, places: Places) -> None:
    """What is stored is ψ of the crops, byte for byte: nothing of the crop travels beside it."""
    for split in (BLUR, PIXELATE, DOWNSAMPLE):
        np.testing.assert_array_equal(np.array(build_views(people, split, places).stored), encode_view(people.images(np.arange(12)), split))


def test_pixels_that_keep_every_cell_mean_do_not_move_a_pixelated_view() -> None:
    crop = draw_record("private", seed=0, index=0).image[None]
    shuffled = crop.copy()
    for top in range(0, 64, 8):
        for left in range(0, 64, 8):
            cell = shuffled[0, top : top + 8, left : left + 8]
            shuffled[0, top : top + 8, left : left + 8] = cell[::-1, ::-1]
    assert not np.array_equal(crop, shuffled)
    np.testing.assert_array_equal(encode_view(crop, PIXELATE), encode_view(shuffled, PIXELATE))


def test_the_blur_is_the_gaussian_one() -> None:
    crop = draw_record("public", seed=0, index=1).image[None]
    view = decode_view(encode_view(crop, BLUR), BLUR, size_px=(64, 64))[0]
    reference = gaussian_filter(crop[0].astype(float), sigma=(3, 3, 0), mode="reflect", truncate=6)
    assert np.abs(view - reference).max() < 4
    assert np.abs(view - reference).mean() < 0.7


def test_wiener_sharpening_gains_detail_but_does_not_restore_the_crop() -> None:
    crops = np.stack([draw_record(domain, seed=5, index=index).image for domain in ("public", "private") for index in range(10)])
    stored = encode_view(crops, BLUR)
    plain, sharp = (decode_view(stored, split, size_px=(64, 64)) for split in (BLUR, SHARP))
    assert psnr(sharp, crops) > psnr(plain, crops) + 1.5
    assert psnr(sharp, crops) < 30
    assert np.abs(np.diff(sharp.astype(float), axis=2)).mean() > 2 * np.abs(np.diff(plain.astype(float), axis=2)).mean()


def test_constant_images_pass_every_transform_unchanged() -> None:
    flat = np.full((1, 64, 48, 3), 77, dtype=np.uint8)
    for split in (BLUR, SHARP, PIXELATE, DOWNSAMPLE):
        np.testing.assert_array_equal(decode_view(encode_view(flat, split), split, size_px=(64, 48)), flat)


def test_a_region_hides_its_pixels_and_keeps_the_others(people: ShardSet, places: Places) -> None:
    row = int(np.flatnonzero(people.visible[:, [8, 9]].all(axis=1))[0])
    view = build_views(people, HEAD, places).images(np.array([row]))[0]
    crop = people.images(np.array([row]))[0]
    changed = (view != crop).any(axis=-1)
    x, y = np.rint(people.keypoints[row, [8, 9]].mean(axis=0)).astype(int)
    assert changed[y - 2 : y + 3, x - 2 : x + 3].mean() > 0.8
    far = np.hypot(*(np.mgrid[0:64, 0:64] - np.array([y, x])[:, None, None])) > 1.5 * people.head_size_px[row]
    assert not changed[far].any()


def test_sharpening_and_name_share_stored_bytes_and_the_digest_tells_them_apart(people: ShardSet, places: Places) -> None:
    plain, sharp = build_views(people, BLUR, places), build_views(people, SHARP, places)
    assert len(list((places.cache_dir / "views").glob("[!.]*"))) == 1
    assert plain.digest != sharp.digest
    assert build_views(people, BLUR, places).digest == plain.digest
    wider = build_views(people, BLUR.model_copy(update={"sigma_px": 2.0}), places)
    assert wider.digest not in (plain.digest, sharp.digest)


def test_views_are_built_once_and_private_ones_are_for_their_owner(
    people: ShardSet, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_views(people, BLUR, places)
    folder = places.cache_dir / "views" / views.views_key(people, BLUR)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setattr(views, "encode_view", None)
    build_views(people, BLUR, places)


def test_changed_bytes_and_a_broken_meta_are_corrupt(people: ShardSet, places: Places) -> None:
    build_views(people, BLUR, places)
    folder = places.cache_dir / "views" / views.views_key(people, BLUR)
    path = folder / "views.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Corrupt, match="differ from those that were written"):
        build_views(people, BLUR, places)
    (folder / "meta.json").write_text(json.dumps([]))
    with pytest.raises(Corrupt, match="lacks its"):
        build_views(people, BLUR, places)


def test_other_private_pixels_give_other_views_under_another_key(people: ShardSet, places: Places, tmp_path: Path) -> None:
    records = [draw_record("private", seed=0, index=index) for index in range(12)]
    records[5] = draw_record("private", seed=1, index=5)
    write_shards(tmp_path / "other", records, header=people.manifest.header)
    other = build_views(open_shards(tmp_path / "other"), BLUR, places)
    same = build_views(people, BLUR, places)
    differs = (other.stored != same.stored).any(axis=(1, 2, 3))
    assert np.flatnonzero(differs).tolist() == [5]


def test_rounding_is_what_keeps_a_blur_from_being_undone() -> None:
    """The floats before rounding give the crop back as far as they reach; the stored bytes, at the best ratio, much less of it."""
    crops = np.stack([draw_record(domain, seed=5, index=index).image for domain in ("public", "private") for index in range(10)])
    ratios = [10.0**power for power in range(-14, -2)]

    def best_psnr(stored: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> float:
        return max(psnr(deconvolve(stored, 3.0, size_px=(64, 64), noise_to_signal=ratio), crops) for ratio in ratios)

    kept = encode_view(crops, BLUR)
    np.testing.assert_array_equal(np.rint(blurred(crops, BLUR)), kept)
    unrounded = best_psnr(blurred(crops, BLUR))
    assert unrounded > best_psnr(kept.astype(float)) + 0.5
    cut = psnr(deconvolve(blurred(crops, BLUR), 3.0, size_px=(64, 64), noise_to_signal=0.0), crops)
    assert unrounded == pytest.approx(cut, abs=0.05)  # what is lost is what the resolution cuts off, nothing of the blur


def region(name: str) -> SplitConfig:
    return SplitConfig(name=name, transform="pixelate", cell_px=8, region=name)


@pytest.mark.parametrize("other", ["head", "person"])
def test_views_that_together_show_whole_records_are_refused(people: ShardSet, places: Places, other: str) -> None:
    build_views(people, region("background"), places)
    with pytest.raises(Refused, match="records completely"):
        build_views(people, region(other), places)
    build_views(people, region("background"), places)
    build_views(people, BLUR, places)


def test_head_and_person_leave_the_head_hidden(people: ShardSet, places: Places) -> None:
    build_views(people, region("head"), places)
    build_views(people, region("person"), places)
    check_join(people, {"all", "background"})


def test_the_join_is_judged_record_by_record(people: ShardSet, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two regions that leave something hidden of eleven records publish the twelfth."""

    def hidden(dataset: ShardSet, rows: np.ndarray[tuple[int], np.dtype[np.int64]], region: str) -> np.ndarray:  # type: ignore[type-arg]
        masks = np.zeros((len(rows), 64, 64), dtype=bool)
        masks[:, : 4 if region == "head" else 2] = True
        if region == "person":
            masks[rows == 7] = ~masks[rows == 7]
            masks[rows == 7, :4] = False
        return masks

    monkeypatch.setattr(views, "hidden_of_rows", hidden)
    with pytest.raises(Refused, match="1 of 12 records completely"):
        check_join(people, {"head", "person"})


def test_views_of_public_people_may_show_what_they_like(places: Places) -> None:
    synth(places.data_dir / "open", "public", count=4, seed=0, role="PUBLIC")
    check_join(open_shards(places.data_dir / "open"), {"head", "background"})
