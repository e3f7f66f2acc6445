"""What attackers recover grows as splits weaken, ends at 0 and 1, and comes from PUBLIC people alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dpcore.config import AttackSettings, Places, RuntimeFlags, SplitConfig, TrialConfig
from dpcore.data.folders import SUMS_NAME
from dpcore.data.manifest import DatasetHeader
from dpcore.data.shards import ShardSet, open_shards, write_shards
from dpcore.data.synthetic import draw_record, synth
from dpcore.data.views import StoredViews
from dpcore.disclosure import evidence, measure
from dpcore.disclosure.evidence import People
from dpcore.disclosure.measure import Laboratory, choose_people, measure_disclosure
from dpcore.errors import BadInput, Corrupt, Refused
from dpcore.privacy.disclosure import Disclosure
from dpcore.privacy.randomness import PublicStreams

WHOLE = SplitConfig(name="whole", transform="pixelate", cell_px=8, region="person")
"""A region split, whose stored bytes are read as they are: a place for views that a test makes up."""


def arithmetic(laboratory: Laboratory) -> Laboratory:
    return replace(laboratory, settings=AttackSettings(steps=0), key="arithmetic")


def blur(sigma_px: float) -> SplitConfig:
    return SplitConfig(name=f"blur_{sigma_px:g}", transform="gaussian_blur", sigma_px=sigma_px)


def disclosed(laboratory: Laboratory, *splits: SplitConfig) -> Disclosure:
    return measure_disclosure(splits, laboratory).disclosure


def publish(monkeypatch: pytest.MonkeyPatch, view: Callable[[np.ndarray], np.ndarray]) -> None:  # type: ignore[type-arg]
    """Lets every split publish `view` of the originals, and say that it hid everything."""

    def build(dataset: ShardSet, split: SplitConfig, places: Places) -> StoredViews:
        return StoredViews(view(dataset.images(np.arange(len(dataset)))), split, size_px=(64, 64), bytes_digest="0")

    monkeypatch.setattr(evidence, "build_views", build)
    monkeypatch.setattr(evidence, "hidden_of_rows", lambda dataset, rows, region: np.ones((len(rows), 64, 64), dtype=bool))


def test_disclosure_falls_as_the_blur_grows(laboratory: Laboratory) -> None:
    found = [disclosed(arithmetic(laboratory), blur(sigma_px)) for sigma_px in (1.0, 3.0, 12.0)]
    values = [one.disclosure or 0.0 for one in found]
    assert values[0] > values[1] > values[2]
    assert found[0].hidden_ssim > found[1].hidden_ssim > found[2].hidden_ssim


def test_a_view_that_shows_the_private_pixels_is_flagged_as_one(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, lambda originals: originals)
    found = disclosed(replace(arithmetic(laboratory), key="identity"), WHOLE)
    assert found.disclosure == 1.0
    assert found.hidden_ssim == pytest.approx(1.0)
    assert found.published.psnr_db is None
    assert "100 %" in (found.warning or "")


def test_a_constant_view_discloses_nearly_nothing(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, lambda originals: np.full_like(originals, 128))
    found = disclosed(replace(laboratory, key="constant"), WHOLE)
    assert found.disclosure is not None
    assert found.disclosure < 0.1
    assert found.warning is None


def test_the_learned_attacker_beats_plain_upsampling(laboratory: Laboratory) -> None:
    found = disclosed(laboratory, SplitConfig(name="down_4", transform="downsample", factor=4))
    published, learned = found.readings
    assert learned.attacker == "down_4 learned"
    assert (learned.psnr_db or 0.0) > (published.psnr_db or 0.0) + 0.5
    assert learned.ssim > published.ssim


def test_deconvolution_beats_the_blur_and_interpolation_the_cells(laboratory: Laboratory) -> None:
    for split in (blur(3.0), SplitConfig(name="cells", transform="pixelate", cell_px=4)):
        published, better = disclosed(arithmetic(laboratory), split).readings
        assert (better.psnr_db or 0.0) > (published.psnr_db or 0.0)


def test_a_region_is_inpainted_and_shown_pixels_stay(laboratory: Laboratory) -> None:
    found = disclosed(laboratory, SplitConfig(name="head", transform="pixelate", cell_px=16, region="head"))
    published, learned = found.readings
    assert 0.0 < found.hidden_frac < 0.6
    assert (learned.psnr_db or 0.0) > (learned.hidden_psnr_db or 0.0)
    assert (learned.hidden_psnr_db or 0.0) > (published.hidden_psnr_db or 0.0)


def test_who_holds_all_views_sees_at_least_what_each_shows(laboratory: Laboratory) -> None:
    head = SplitConfig(name="head", transform="pixelate", cell_px=16, region="head")
    alone = [disclosed(arithmetic(laboratory), split) for split in (head, blur(6.0))]
    both = disclosed(arithmetic(laboratory), head, blur(6.0))
    assert both.splits == ("head", "blur_6")
    assert both.hidden_frac == alone[0].hidden_frac
    assert (both.disclosure or 0.0) >= max(one.disclosure or 0.0 for one in alone)
    assert both.hidden_ssim > alone[0].hidden_ssim  # the blur tells more of the head than cells of a quarter crop
    assert both.best.ssim > alone[1].best.ssim


def test_the_result_is_stored_and_the_same_again(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = replace(laboratory, settings=AttackSettings(steps=2, batch_size=4), key="again")
    first = measure_disclosure([blur(5.0)], fast)
    other = measure_disclosure([blur(5.0)], replace(fast, key="once more"))
    assert other.folder != first.folder
    assert other.disclosure == first.disclosure
    monkeypatch.setattr(measure, "_measure_into", None)
    assert measure_disclosure([blur(5.0)], fast) == first
    samples = first.samples()
    assert samples.originals.shape == samples.published.shape == samples.restored.shape == (8, 64, 64, 3)
    assert samples.synthetic
    (first.folder / SUMS_NAME).unlink()  # as 0.1.0 left it: with its sums it would be made anew
    (first.folder / "disclosure.json").write_text("{")
    with pytest.raises(Corrupt, match="cannot be read"):
        measure_disclosure([blur(5.0)], fast)


def test_an_attacker_is_never_given_private_people(attack_places: Places) -> None:
    folder = attack_places.data_dir / "secret"
    synth(folder, "private", count=4, seed=5, role="PRIVATE")
    private, public = open_shards(folder), open_shards(attack_places.data_dir / "public")
    with pytest.raises(Refused, match="secret is PRIVATE"):
        People(parts=((public, np.arange(4)), (private, np.arange(4))))
    train, test = choose_people(public, private, AttackSettings(), PublicStreams(0))
    assert {dataset.manifest.name for people in (train, test) for dataset, _ in people.parts} == {"public"}


def test_nobody_is_both_learned_from_and_tested_on(attack_places: Places) -> None:
    """The second photograph of a tested scene, and a copy of a tested crop in the other set, stay out of the training."""
    records = [draw_record("public", seed=7, index=index) for index in range(12)]
    scenes = [replace(record, image_id=f"scene {index // 2}") for index, record in enumerate(records)]
    header = DatasetHeader(name="scenes", role="PUBLIC", protected=False, height_px=64, width_px=64, origin="test")
    for name, rows in (("scenes", scenes), ("copies", records)):
        write_shards(attack_places.data_dir / name, rows, header=header.model_copy(update={"name": name}))
    copies, validation = open_shards(attack_places.data_dir / "copies"), open_shards(attack_places.data_dir / "scenes")
    train, test = choose_people(copies, validation, AttackSettings(), PublicStreams(0))
    ((_, tested),) = test.parts
    assert len(tested) == 6
    for dataset, chosen in train.parts:
        assert not np.isin(dataset.content_hashes[chosen], validation.content_hashes[tested]).any()
    assert not np.isin(validation.image_ids[train.parts[0][1]], validation.image_ids[tested]).any()


def test_a_single_person_is_too_few(attack_places: Places) -> None:
    synth(attack_places.data_dir / "one", "public", count=1, seed=9, role="PUBLIC")
    one = open_shards(attack_places.data_dir / "one")
    with pytest.raises(BadInput, match="at least 2"):
        choose_people(one, one, AttackSettings(), PublicStreams(0))


def test_the_private_dataset_is_not_even_opened(laboratory: Laboratory, attack_config: TrialConfig, attack_places: Places) -> None:
    assert not (attack_places.data_dir / attack_config.data.private).exists()
    again = Laboratory.open(attack_config, laboratory.settings, places=attack_places, runtime=RuntimeFlags())
    assert again.key == laboratory.key
