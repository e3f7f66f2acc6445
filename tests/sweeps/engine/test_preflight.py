"""What PUBLIC data and manifests tell before a trial is charged: whether a score can be computed, and whether crops fit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imported import import_file
from PIL import Image
from spaces import DOCUMENT, space

from dpcore.config import Places, SplitConfig
from dpcore.data.manifest import DatasetHeader
from dpcore.data.shards import open_shards, write_shards
from dpcore.data.synthetic import draw_record, synth
from dpcore.errors import BadInput, Refused
from sweeps.engine.preflight import describe_dataset, describe_for_plan, plan_of
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.totals import views_text
from sweeps.records.cohort_ledger import bind_ledger
from sweeps.records.spec import SweepSpec

PERSON: dict[str, Any] = {"image": "a.png", "center": [60, 60], "scale": 0.4, "joints": [[40 + j, 50] for j in range(16)]}

FEATURE = {"method": ["feature"]}
SEARCH: dict[str, Any] = {**DOCUMENT["search"], "public_batch_size": {"choice": [8], "when": FEATURE}}


@pytest.fixture
def spec(places: Places, tmp_path: Path) -> SweepSpec:
    """A sweep on small datasets, with a validation set of 64 px crops that the tests make."""
    synth(places.data_dir / "private", "private", count=12, seed=1, role="PRIVATE")
    synth(places.data_dir / "public", "public", count=12, seed=2, role="PUBLIC")
    data = {"private": "private", "public": "public", "validation": "validation", "nominal_examples": 12}
    stages = {"public_view": {"until": "converged"}, "private": {"steps": 3, "expected_batch_size": 4}}
    return SweepSpec(
        name="s", space=space(trial={"data": data, "stages": stages}, search=SEARCH), places=places, storage=tmp_path / "storage"
    )


def validation_set(spec: SweepSpec, tmp_path: Path, *, size_px: int = 64, visible: int = 1, head_size: float | None = 9.5) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 120, 3), dtype=np.uint8)).save(tmp_path / "images" / "a.png")
    record = {**PERSON, "joints_vis": [visible] * 16, "head_size": head_size}
    (tmp_path / "a.json").write_text(json.dumps([record]))
    out = spec.places.data_dir / "validation"
    size = {"height_px": size_px, "width_px": size_px}
    import_file("hrnet", tmp_path / "a.json", tmp_path / "images", out, name="validation", **size)


def elsewhere(spec: SweepSpec, **sections: Any) -> SweepSpec:
    """The sweep, on datasets that are not on this machine."""
    data = {**DOCUMENT["trial"]["data"], "private": "mpii/train", "public": "coco/train", "validation": "mpii/val"}
    return spec.model_copy(update={"space": space(trial={"data": data}, **sections)})


def test_a_plan_is_made_without_its_data_and_says_what_it_could_not_check(spec: SweepSpec, tmp_path: Path) -> None:
    asked = elsewhere(spec)
    (note,) = describe_for_plan(asked).notes
    assert f"mpii/train, coco/train, mpii/val not in {asked.places.data_dir}" in note
    assert "whether the people are protected, and what they were charged before" in note
    with pytest.raises(BadInput, match="mpii/train"):
        describe_dataset(asked)
    scored = {"validation": "private", "validation_epsilon": 1.0, "validation_units": 30}
    with pytest.raises(BadInput, match="mpii/train"):
        describe_for_plan(elsewhere(spec, sweep=scored))


def test_a_plan_looks_at_a_private_dataset_that_is_there(spec: SweepSpec, tmp_path: Path) -> None:
    asked = elsewhere(spec)
    synth(asked.places.data_dir / "mpii/train", "private", count=3, seed=2, role="PRIVATE", name="train")
    with pytest.raises(BadInput, match="coco/train"):
        describe_for_plan(asked)


def test_validation_data_with_head_sizes_are_planned(spec: SweepSpec, tmp_path: Path) -> None:
    validation_set(spec, tmp_path)
    assert plan_of(spec).trials > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head_size": None}, "data.validation validation: no head size is known.*--head-boxes"),
        ({"visible": 0}, "data.validation validation: no joint that PCKh counts"),
        ({"size_px": 192}, "dataset validation has crops of 192x192 px, the model takes 64x64"),
    ],
)
def test_a_sweep_that_could_not_score_is_refused_before_anything_is_written(
    spec: SweepSpec, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    validation_set(spec, tmp_path, **changes)
    with pytest.raises(BadInput, match=said):
        plan_of(spec)
    assert not (tmp_path / "storage").exists()


@pytest.mark.parametrize("protected", ["private", "validation"])
def test_a_sweep_is_protected_where_those_it_validates_on_are(places: Places, tmp_path: Path, protected: str) -> None:
    for seed, name in enumerate(("private", "public", "validation")):
        role = "PUBLIC" if name == "public" else "PRIVATE"
        header = DatasetHeader(name=name, role=role, protected=name == protected, height_px=64, width_px=64, origin="a test")
        write_shards(places.data_dir / name, [draw_record("private", seed=seed, index=index) for index in range(12)], header=header)
    bind_ledger(open_shards(places.data_dir / protected), ledger=None, epsilon_total=3.0, delta=1e-5)
    data = {"private": "private", "public": "public", "validation": "validation", "nominal_examples": 12}
    sweep = {"validation": "private", "validation_epsilon": 2.0, "validation_units": 3000}
    stages = {"public_view": {"until": "converged"}, "private": {"steps": 3, "expected_batch_size": 4}}
    checked = space(trial={"data": data, "stages": stages}, sweep=sweep, search=SEARCH)
    facts = describe_dataset(SweepSpec(name="s", space=checked, places=places, storage=tmp_path / "storage"))
    assert facts.protected
    assert facts.validation_cohort not in (None, facts.cohort)


@pytest.mark.parametrize(
    ("batch", "search", "said"),
    [
        (64, {}, "stages.public.batch_size is 64, and dataset public has 12 to draw from"),
        (8, {"subspace.examples": {"choice": [8, 16]}}, "subspace.examples is 16, and dataset public has 12 to draw from"),
        (8, {"public_batch_size": {"choice": [12, 20], "when": FEATURE}}, "public_batch_size is 20, and dataset private has 12"),
        (8, {"start": {"choice": ["public_view"], "when": FEATURE}}, "stages.public_view.batch_size is 64, and dataset private has 10"),
    ],
)
def test_a_setting_that_asks_for_more_examples_than_there_are_is_refused(
    spec: SweepSpec, tmp_path: Path, batch: int, search: dict[str, Any], said: str
) -> None:
    validation_set(spec, tmp_path)
    searched = {**SEARCH, **search}
    if "subspace.examples" in search:
        searched = {"method": {"choice": ["projected"]}, "clip_norm": SEARCH["clip_norm"], "subspace.rank": {"choice": [4]}, **search}
    stages = {"public": {"steps": 5, "batch_size": batch}, **spec.space.trial["stages"]}
    asked = space(trial={**spec.space.trial, "stages": stages}, search=searched)
    with pytest.raises(BadInput, match=said):
        plan_of(spec.model_copy(update={"space": asked}))
    assert not (tmp_path / "storage").exists()


def test_look_alikes_are_said_once_a_dataset_by_the_names_that_the_space_has(places: Places, tmp_path: Path) -> None:
    """All three datasets have the same manifest name, and one of them has two parts to play."""
    synth(places.data_dir / "clinic" / "train", "private", count=12, seed=1, role="PRIVATE", name="train")
    person = draw_record("private", seed=1, index=3)
    header = DatasetHeader(name="train", role="PUBLIC", protected=False, height_px=64, width_px=64, origin="a test")
    noisy = replace(person, image=np.clip(person.image.astype(int) + 1, 0, 255).astype(np.uint8))
    write_shards(places.data_dir / "open" / "train", [noisy, draw_record("public", seed=2, index=0)], header=header)
    data = {"private": "clinic/train", "public": "open/train", "validation": "open/train", "nominal_examples": 12}
    stages = {"public_view": {"until": "converged"}, "private": {"steps": 3, "expected_batch_size": 4}}
    search = {"method": {"choice": ["dpsgd"]}, "clip_norm": {"float": [0.1, 1.0]}}
    checked = space(trial={"data": data, "stages": stages}, search=search)
    said = describe_dataset(SweepSpec(name="s", space=checked, places=places, storage=tmp_path / "storage")).notes
    assert len(said) == 1
    assert said[0].startswith("1 pictures of open/train look like pictures of clinic/train")


def test_views_that_the_ledger_says_are_out_join_with_those_of_a_sweep_whatever_became_of_their_cache(
    spec: SweepSpec, tmp_path: Path
) -> None:
    validation_set(spec, tmp_path)
    sections = {"trial": dict(spec.space.trial), "search": {**SEARCH, "public_batch_size": {"choice": [4], "when": FEATURE}}}
    splits = {"blur": {"transform": "gaussian_blur", "sigma_px": 4, "region": "background"}}
    later = spec.model_copy(update={"space": space(splits=splits, **sections)})
    facts = describe_dataset(later)
    ledger = Ledger(later.resolved_ledger_url)
    head = SplitConfig(name="head", transform="pixelate", cell_px=8, region="head")
    ledger.publish("earlier", cohort=facts.cohort, dataset="private", views=views_text([head]))
    ledger.close()
    with pytest.raises(Refused, match=r"views that hide background and views that hide head together show \d+ of 12 records"):
        describe_dataset(later)
