"""Neighbours, for real: a unit is taken out of the dataset on disk, and the private sum of a whole step must move by at most C.

The step runs as a trial runs it (shards, stored views, network, hooks, units, clip, projection); what is compared is the sum
that the noise would be added to. All units are drawn (q = 1), so the two sums differ by the unit that is gone alone. Rows are
far longer than C, so the bound is reached and a looser clip would show.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpcore.config import Places, RuntimeFlags, TrialConfig, parse_config
from dpcore.data.catalog import unit_ids
from dpcore.data.manifest import DatasetHeader, Record
from dpcore.data.shards import ShardSet, open_shards, write_shards
from dpcore.data.transforms import draw_geometry
from dpcore.data.views import build_views
from dpcore.model.network import build_network, codec_of
from dpcore.privacy import mechanism as mechanism_module
from dpcore.privacy.clipping import BoundedSum
from dpcore.privacy.mechanism import Mechanism, Randomness
from dpcore.privacy.noise import add_noise
from dpcore.privacy.per_example import GradientEngine
from dpcore.privacy.randomness import PrivateStreams, PublicStreams, SweepKey
from dpcore.train.evaluator import loss_of
from dpcore.train.inputs import InputBuilder, device_of, labels_of
from dpcore.train.optimizer import start_scales
from dpcore.train.private_steps import sources_of
from dpcore.train.sources import Examples, LabelledViews
from dpcore.train.trial_data import TrialData

SIDE, CLIP_NORM = 32, 0.05
SLACK = 1e-4
METHODS = [
    ("dpsgd", None),
    ("projected", "clip_then_project"),
    ("projected", "project_then_clip"),
    ("feature", None),
    ("feature_projected", "clip_then_project"),
    ("feature_projected", "project_then_clip"),
]
CROPS = [("i0", "v0"), ("i1", "v0"), ("i0", "v0"), ("i2", "v1"), ("i0", "v0"), ("i3", "v1"), ("i1", "v0"), ("i4", "v2"), ("i5", "v2")]
"""Image and video of each crop, scattered: units of one to five crops."""


def crop(index: int, seed: int = 0) -> Record:
    generator = np.random.default_rng([seed, index])
    return Record(
        image=generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
        keypoints=generator.uniform(0, SIDE, (16, 2)),
        visible=generator.random(16) > 0.2,
        head_size_px=6.0,
        person_id=f"p{index}",
        image_id=CROPS[index % len(CROPS)][0],
        video_id=CROPS[index % len(CROPS)][1],
        source_id=f"crop {index}",
    )


def folded_weights(folder: Path) -> None:
    """A folded network of two convolutions, made up."""
    generator = np.random.default_rng(0)
    layers = [
        {"name": "stem", "op": "conv", "inputs": ["input"], "shape": [8, 3, 3, 3], "stride": 2, "act": "relu6"},
        {"name": "dw", "op": "dwconv", "inputs": ["stem"], "shape": [8, 1, 3, 3], "stride": 2, "act": None},
    ]
    folder.mkdir(parents=True)
    np.savez(
        folder / "tiny_fp16.npz",
        **{
            "stem.weight": generator.normal(size=(8, 3, 3, 3)).astype(np.float16),
            "dw.weight": generator.normal(size=(8, 1, 3, 3)).astype(np.float16),
        },
    )
    (folder / "tiny_layers.json").write_text(json.dumps({"model": "tiny", "input": "RGB 0..255 -> x/127.5-1", "layers": layers}))


MODELS: dict[str, dict[str, Any]] = {
    "small": {"backbone": "small", "freeze": "early"},
    "folded": {"backbone": "folded", "weights": "models/tiny", "feature_layers": ["stem", "dw"], "freeze": "none"},
}


@dataclass
class Bench:
    """Datasets and networks, made once: every case sees the same weights."""

    root: Path

    def __post_init__(self) -> None:
        self.places = Places(data_dir=self.root, cache_dir=self.root / "cache")
        folded_weights(self.root / "models")
        self.public = self.dataset("PUBLIC", range(8), seed=1)
        self.engines: dict[tuple[str, str, str], tuple[GradientEngine, InputBuilder]] = {}

    def dataset(self, role: str, rows: Any, *, seed: int = 0) -> ShardSet:
        kept = list(rows)
        folder = self.root / f"{role}-{'-'.join(map(str, kept))}"
        if not folder.exists():
            header = {"name": "d", "role": role, "protected": False, "height_px": SIDE, "width_px": SIDE, "origin": "test"}
            write_shards(folder, [crop(row, seed) for row in kept], header=DatasetHeader.model_validate(header))
        return open_shards(folder)

    def engine(self, config: TrialConfig, precision: str) -> tuple[GradientEngine, InputBuilder]:
        key = config.model.backbone, precision, config.optimizer.scale
        if key not in self.engines:
            split = build_network(config.model, self.places, generator=torch.Generator().manual_seed(0)).split(config.model.freeze)
            builder = InputBuilder.for_split(split, model=config.model, places=self.places, device=device_of(RuntimeFlags()))
            scales = start_scales(config.optimizer.scale, split.tail)
            loss = loss_of(codec_of(config.model))
            engine = GradientEngine(split.tail, loss, precision=precision, scales=scales)  # type: ignore[arg-type]
            self.engines[key] = engine, builder
        return self.engines[key]

    def config(self, method: str, order: str | None, *, backbone: str, unit: str, **changes: Any) -> TrialConfig:
        units = len(np.unique(unit_ids(self.dataset("PRIVATE", range(len(CROPS))), unit)))  # type: ignore[arg-type]
        values: dict[str, Any] = {
            "method": method,
            "epsilon": 1.0,
            "delta": 1e-5,
            "clip_norm": CLIP_NORM,
            "data": {"private": "a", "public": "b", "validation": "c", "nominal_examples": units},
            "model": {**MODELS[backbone], "input_height_px": SIDE, "input_width_px": SIDE},
            "stages": {"private": {"steps": 3, "expected_batch_size": units}},
            "privacy_unit": unit,
            "examples_per_unit": 2,
        }
        if "feature" in method:
            values |= {"split": {"name": "p", "transform": "pixelate", "cell_px": 8}, "public_batch_size": 2, "public_weight": 0.7}
        if order is not None:
            values["subspace"] = {"rank": 3, "examples": 6, "order": order}
        return parse_config(TrialConfig, values | changes)

    def private_sum(self, config: TrialConfig, rows: list[int], *, physical: int, precision: str) -> BoundedSum:
        """What the first step of a trial on these rows would add its noise to."""
        private = self.dataset("PRIVATE", rows)
        views = None if config.split is None else LabelledViews(build_views(private, config.split, self.places), labels_of(private))
        engine, builder = self.engine(config, precision)
        data = TrialData(private=private, public=self.public, validation=self.public, views=views)
        made = Mechanism(
            config,
            engine,
            sources=sources_of(config, data=data, builder=builder),
            randomness=Randomness(private=PrivateStreams(key=SweepKey(bytes(32)), trial_id="t"), public=PublicStreams(0)),
            noise_multiplier=1.0,
            physical_batch_size=physical,
        )
        return intercepted(lambda: made.direction(0))


def intercepted(step: Callable[[], object]) -> BoundedSum:
    """The sum that reaches the noise."""
    seen: list[BoundedSum] = []

    def watching(bounded: BoundedSum, **given: Any) -> Any:
        seen.append(bounded)
        return add_noise(bounded, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mechanism_module, "add_noise", watching)
        step()
    (bounded,) = seen
    return bounded


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("sensitivity"))


def without(unit: str, name: str) -> list[int]:
    place: Callable[[int], str] = {"person": lambda row: f"p{row}", "image": lambda row: CROPS[row][0], "video": lambda row: CROPS[row][1]}[
        unit
    ]
    return [row for row in range(len(CROPS)) if place(row) != name]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("backbone", ["small", "folded"])
@pytest.mark.parametrize(("unit", "gone"), [("person", ["p3"]), ("image", ["i0", "i5"]), ("video", ["v0"])])
@pytest.mark.parametrize(("method", "order"), METHODS)
def test_the_sum_moves_by_at_most_the_clip_norm_when_a_unit_leaves_the_dataset(
    bench: Bench, method: str, order: str | None, unit: str, gone: list[str], backbone: str, precision: str
) -> None:
    config = bench.config(method, order, backbone=backbone, unit=unit)
    everyone = list(range(len(CROPS)))
    sizes = (1, 4, 64) if precision == "fp32" else (4, 64)
    whole = {physical: bench.private_sum(config, everyone, physical=physical, precision=precision) for physical in sizes}
    for name in gone:
        for physical, full in whole.items():
            neighbour = bench.private_sum(config, without(unit, name), physical=physical, precision=precision)
            moved = float((full.value - neighbour.value).norm())
            assert full.rows == neighbour.rows + 1
            assert moved <= CLIP_NORM * (1 + SLACK)
            if order != "clip_then_project":
                assert moved >= CLIP_NORM * (1 - SLACK)
    # bfloat16 keeps three digits, and rounds products of a batch in another order than those of its parts
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    for other in whole.values():
        assert float((other.value - whole[64].value).norm()) <= tolerance * CLIP_NORM * other.rows


@pytest.mark.parametrize("unit", ["person", "image", "video"])
@pytest.mark.parametrize("method", ["dpsgd", "feature"])
def test_the_bound_holds_for_augmented_examples(bench: Bench, method: str, unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last unit leaves. Draws are independent from example to example, so those before it may be given the same ones."""

    def coupled(self: Examples, stream: Any, count: int) -> Any:
        return draw_geometry(self.augmentation, len(CROPS), stream)[:count]

    monkeypatch.setattr(Examples, "draw_geometry", coupled)
    augmentation = {"flip_prob": 0.5, "rotate_deg": 30, "rotate_prob": 1.0, "scale_frac": 0.2}
    config = bench.config(method, None, backbone="folded", unit=unit, augmentation=augmentation)
    gone = {"person": "p8", "image": "i5", "video": "v2"}[unit]
    sums = [bench.private_sum(config, rows, physical=4, precision="fp32").value for rows in (list(range(len(CROPS))), without(unit, gone))]
    assert CLIP_NORM * (1 - SLACK) <= float((sums[0] - sums[1]).norm()) <= CLIP_NORM * (1 + SLACK)


@pytest.mark.parametrize("unit", ["person", "video"])
@pytest.mark.parametrize(("method", "order"), [("dpsgd", None), ("feature", None), ("feature_projected", "project_then_clip")])
def test_the_bound_holds_however_many_augmented_copies_a_record_has(
    bench: Bench, method: str, order: str | None, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last unit leaves. The draws of the others are kept: a copy's draws follow those of all first copies."""
    copies, gone = 3, {"person": "p8", "video": "v2"}[unit]

    def coupled(self: Examples, stream: Any, count: int) -> Any:
        every = draw_geometry(self.augmentation, copies * len(CROPS), stream)
        return every[np.concatenate([copy * len(CROPS) + np.arange(count // copies) for copy in range(copies)])]

    monkeypatch.setattr(Examples, "draw_geometry", coupled)
    augmentation = {"flip_prob": 0.5, "rotate_deg": 30, "rotate_prob": 1.0, "scale_frac": 0.2, "multiplicity": copies}
    config = bench.config(method, order, backbone="folded", unit=unit, augmentation=augmentation)
    for physical in (1, 64):
        rows = (list(range(len(CROPS))), without(unit, gone))
        sums = [bench.private_sum(config, kept, physical=physical, precision="fp32") for kept in rows]
        moved = float((sums[0].value - sums[1].value).norm())
        assert sums[0].rows == sums[1].rows + 1
        assert CLIP_NORM * (1 - SLACK) <= moved <= CLIP_NORM * (1 + SLACK)


@pytest.mark.parametrize("unit", ["person", "image"])
@pytest.mark.parametrize(("method", "order"), METHODS)
def test_the_bound_holds_in_the_space_of_relative_weights_where_the_noise_is_added(
    bench: Bench, method: str, order: str | None, unit: str
) -> None:
    config = bench.config(method, order, backbone="folded", unit=unit, optimizer={"scale": "relative"})
    scales = bench.engine(config, "fp32")[0].scales
    assert scales is not None
    assert max(scales) >= 4 * min(scales)
    for gone in {"person": ("p3", "p8"), "image": ("i0", "i5")}[unit]:
        rows = (list(range(len(CROPS))), without(unit, gone))
        sums = [bench.private_sum(config, kept, physical=4, precision="fp32").value for kept in rows]
        moved = float((sums[0] - sums[1]).norm())
        assert moved <= CLIP_NORM * (1 + SLACK)
        if order is None:  # a projection may leave less than C of a row
            assert moved >= CLIP_NORM * (1 - SLACK)


def test_a_step_on_nobody_sums_to_zero_and_is_released_under_noise(bench: Bench) -> None:
    config = bench.config("dpsgd", None, backbone="folded", unit="image").changed(
        **{"stages.private.expected_batch_size": 1, "data.nominal_examples": 10**9, "delta": 1e-11}
    )
    empty = bench.private_sum(config, list(range(len(CROPS))), physical=4, precision="fp32")
    assert (empty.rows, float(empty.value.abs().sum())) == (0, 0.0)
