"""Labels private: nothing public moves when labels, visibility, head sizes and hidden pixels are swapped. The mutants that read
them (tests/mutants) are caught here."""

import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planned_trials import handed
from torch import Tensor

from dpcore.config import Places, RuntimeFlags, SplitConfig, TrialConfig
from dpcore.data.catalog import open_dataset
from dpcore.data.folders import SUMS_NAME
from dpcore.data.manifest import DatasetHeader, Record
from dpcore.data.shards import write_shards
from dpcore.data.synthetic import draw_record
from dpcore.data.views import build_views
from dpcore.errors import BadInput, Corrupt, Refused
from dpcore.model.network import weights_digest
from dpcore.privacy.mechanism import Mechanism
from dpcore.privacy.per_example import GradientEngine
from dpcore.privacy.randomness import PrivateStreams, PublicStreams, SweepKey
from dpcore.privacy.sources import Randomness
from dpcore.train import pseudo_labels
from dpcore.train.evaluator import training_loss
from dpcore.train.inputs import InputBuilder
from dpcore.train.private_steps import sources_of
from dpcore.train.stages import started_network
from dpcore.train.start_basis import start_basis
from dpcore.train.trainer import Report, run_trial
from dpcore.train.trial_data import TrialData, open_trial_data

Make = Callable[..., TrialConfig]
Patch = pytest.MonkeyPatch

CELL_PX = 8
TEACHER = {"steps": 6, "batch_size": 16, "learning_rate": 3e-3, "min_confidence": 0.2}
PUBLIC_TENSORS = {"views' labels", "stage", "floor", "control", "public term", "basis", "shared basis", "public half of a pair"}


@pytest.fixture(scope="module")
def swapped(train_places: Places) -> str:
    """The private dataset with other labels everywhere, and other pixels that its pixelated views do not show."""
    header = open_dataset("private", train_places).manifest.header
    write_shards(train_places.data_dir / "swapped", _swapped_records(64), header=header.model_copy(update={"name": "swapped"}))
    return "swapped"


def _swapped_records(count: int) -> Iterator[Record]:
    rng = np.random.default_rng(0)
    for index in range(count):
        record = draw_record("private", seed=2, index=index)
        yield replace(
            record,
            image=_shuffled_in_cells(record.image, rng),
            keypoints=rng.uniform(0, 63, size=(16, 2)).astype(np.float32),
            visible=rng.random(16) < 0.7,
            head_size_px=3 * record.head_size_px,
        )


def _shuffled_in_cells(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another image whose cells have the very same means."""
    cells = image.reshape(64 // CELL_PX, CELL_PX, 64 // CELL_PX, CELL_PX, 3).transpose(0, 2, 1, 3, 4).reshape(-1, CELL_PX**2, 3)
    mixed = np.stack([cell[rng.permutation(CELL_PX**2)] for cell in cells])
    return mixed.reshape(64 // CELL_PX, 64 // CELL_PX, CELL_PX, CELL_PX, 3).transpose(0, 2, 1, 3, 4).reshape(64, 64, 3)


def _config(make: Make, labels: str, method: str = "feature_projected", **paths: Any) -> TrialConfig:
    private = {"labels": "private", "teacher": TEACHER} if labels == "private" else {}
    view = {"start": "public_view", "stages__public_view": {"steps": 3, "batch_size": 8}}
    source = {"subspace__source": "public_view"} if method == "feature_projected" else {}
    return make(method, **{**view, **private, **source, **paths})


class World:
    """One private dataset and all that the public side of a trial makes of it, in a cache of its own: equal tensors are made
    alike, not found in a cache."""

    def __init__(self, make: Make, labels: str, dataset: str, *, places: Places, runtime: RuntimeFlags, loss: str) -> None:
        self.config = _config(make, labels, data__private=dataset, loss=loss)
        self.floor = _config(make, labels, "public_only", split=self.config.split, data__private=dataset, loss=loss)
        self.places = places
        self.runtime = runtime
        self.data = open_trial_data(self.config, places, runtime)
        assert self.data.views is not None

    def public_tensors(self) -> dict[str, str]:
        """A digest of each tensor that the public side makes."""
        views, places, runtime = self.data.views, self.places, self.runtime
        assert views is not None
        network = started_network(self.config, public=self.data.public, views=views, places=places, runtime=runtime)
        stage = weights_digest(network.state_dict())
        split = network.split(self.config.model.freeze)
        builder = InputBuilder.for_split(split, model=self.config.model, places=places, device=torch.device("cpu"))
        engine = GradientEngine(split.tail, training_loss(self.config))
        mechanism = _mechanism(self.config, engine, data=self.data, builder=builder)
        sources, settled = sources_of(self.config, data=self.data, builder=builder), runtime.model_copy(update={"physical_batch_size": 16})
        shared = start_basis(self.config, engine, sources=sources, data=self.data, builder=builder, runtime=settled)
        records = builder.records(self.data.private, views, self.config.augmentation)
        half = engine.rows(records.view_batch(np.arange(8), None))
        term = mechanism.direction(0).public_term
        assert term is not None
        assert mechanism.basis is not None
        assert mechanism.basis.directions is not None
        assert shared.basis.directions is not None
        return {
            "views' labels": views.labels.digest,
            "stage": stage,
            "floor": self._trained(self.floor),
            "control": self._trained(self.config.changed(private_weight=0.0)),
            "public term": _digest(term),
            "basis": _digest(mechanism.basis.directions),
            "shared basis": _digest(shared.basis.directions),
            "public half of a pair": _digest(half),
        }

    def _trained(self, config: TrialConfig) -> str:
        return _run(config, self.runtime, self.places, key=None)[-1].weights_digest


def _mechanism(config: TrialConfig, engine: GradientEngine, *, data: TrialData, builder: InputBuilder) -> Mechanism:
    streams = Randomness(private=PrivateStreams(key=SweepKey(bytes(32)), trial_id="t"), public=PublicStreams(config.seed))
    sources = sources_of(config, data=data, builder=builder)
    return Mechanism(config, engine, sources=sources, randomness=streams, noise_multiplier=1.0, physical_batch_size=16)


def _digest(tensor: Tensor) -> str:
    return weights_digest({"tensor": tensor})


def _run(config: TrialConfig, runtime: RuntimeFlags, places: Places, *, key: SweepKey | None) -> list[Report]:
    return list(run_trial(config, runtime, handed(config, places=places, trial_id="t", key=key, folder=None)))


@pytest.fixture
def moved(train_places: Places, swapped: str, make_config: Make, tmp_path: Path) -> Callable[..., set[str]]:
    """Which public tensors the swap moves, under `labels` public or private."""
    runtime = RuntimeFlags(physical_batch_size=16)

    def measure(labels: str, loss: str = "simcc") -> set[str]:
        found = []
        for dataset in ("private", swapped):
            places = Places(data_dir=train_places.data_dir, cache_dir=tmp_path / labels / dataset)
            found.append(World(make_config, labels, dataset, places=places, runtime=runtime, loss=loss).public_tensors())
        assert found[0].keys() == PUBLIC_TENSORS
        return {name for name in PUBLIC_TENSORS if found[0][name] != found[1][name]}

    return measure


def test_the_swap_leaves_the_views_and_nothing_else(train_places: Places, swapped: str) -> None:
    ours, theirs = open_dataset("private", train_places), open_dataset(swapped, train_places)
    split = SplitConfig(name="pixel_8", transform="pixelate", cell_px=CELL_PX)
    assert build_views(ours, split, train_places).digest == build_views(theirs, split, train_places).digest
    everyone = np.arange(len(ours))
    assert (ours.images(everyone) != theirs.images(everyone)).mean() > 0.5
    assert not np.array_equal(ours.visible, theirs.visible)
    assert not np.isclose(ours.head_size_px, theirs.head_size_px).any()
    assert set(ours.content_hashes).isdisjoint(theirs.content_hashes)


def test_no_public_tensor_moves_when_private_labels_and_hidden_pixels_are_swapped(moved: Callable[..., set[str]]) -> None:
    assert moved("private") == set()


def test_no_public_tensor_of_a_loss_that_reads_head_sizes_moves_either(moved: Callable[..., set[str]]) -> None:
    assert moved("private", "pck_mass") == set()


def test_the_same_swap_moves_every_one_of_them_when_labels_are_public(moved: Callable[..., set[str]]) -> None:
    assert moved("public") == PUBLIC_TENSORS


@pytest.mark.parametrize("method", ["dpsgd", "projected", "feature", "feature_projected"])
def test_private_methods_train_with_private_labels_and_the_true_ones_reach_the_private_half(
    method: str, train_places: Places, swapped: str, make_config: Make, runtime: RuntimeFlags, key: SweepKey
) -> None:
    split = {} if method.startswith("feature") else {"split": {"name": "pixel_8", "transform": "pixelate", "cell_px": CELL_PX}}
    ends = []
    for dataset in ("private", swapped):
        config = _config(make_config, "private", method, data__private=dataset, **split)
        reports = _run(config, runtime, train_places, key=key)
        assert reports[-1].done
        assert 0 < reports[-1].metrics["privacy/epsilon_spent"] <= 1.0
        ends.append(reports[-1].weights_digest)
    assert ends[0] != ends[1]


def test_the_public_side_holds_no_true_label(train_places: Places, make_config: Make, runtime: RuntimeFlags) -> None:
    data = open_trial_data(_config(make_config, "private"), train_places, runtime)
    assert data.views is not None
    assert data.views.teacher is not None
    assert not np.array_equal(data.views.labels.keypoints, data.private.keypoints)
    assert not np.shares_memory(data.views.labels.visible, data.private.visible)


def test_replays_differ_by_teacher_and_pseudo_labels(train_places: Places, make_config: Make, runtime: RuntimeFlags) -> None:
    def digests(**teacher: Any) -> dict[str, str]:
        config = _config(make_config, "private", teacher={**TEACHER, **teacher})
        return open_trial_data(config, train_places, runtime).digests()

    plain, unsure, longer = digests(), digests(min_confidence=0.3), digests(steps=7)
    assert {"teacher", "pseudo_labels", "views"} <= plain.keys()
    assert plain["teacher"] == unsure["teacher"] != longer["teacher"]
    assert len({plain["pseudo_labels"], unsure["pseudo_labels"], longer["pseudo_labels"]}) == 3
    assert "teacher" not in open_trial_data(_config(make_config, "public"), train_places, runtime).digests()


def test_pseudo_labels_are_made_once_for_their_owner_alone(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, tmp_path: Path, monkeypatch: Patch
) -> None:
    places = Places(data_dir=train_places.data_dir, cache_dir=tmp_path)
    config = _config(make_config, "private")
    first = open_trial_data(config, places, runtime).views
    folder = _stored(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setattr(pseudo_labels, "_labels_by", None)
    again = open_trial_data(config, places, runtime).views
    assert first is not None
    assert again is not None
    assert first.labels.digest == again.labels.digest
    unsure = ~again.labels.visible
    assert unsure.any()
    assert (again.labels.keypoints[unsure] == 0).all()


def test_damaged_pseudo_labels_are_corrupt(train_places: Places, make_config: Make, runtime: RuntimeFlags, tmp_path: Path) -> None:
    places = Places(data_dir=train_places.data_dir, cache_dir=tmp_path)
    open_trial_data(_config(make_config, "private"), places, runtime)
    (_stored(tmp_path) / SUMS_NAME).unlink()  # as 0.1.0 left it: with its sums it would be made anew
    path = _stored(tmp_path) / pseudo_labels.LABELS_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(Corrupt, match="not those that were written"):
        open_trial_data(_config(make_config, "private"), places, runtime)
    path.unlink()
    with pytest.raises(Corrupt, match="cannot be read"):
        open_trial_data(_config(make_config, "private"), places, runtime)


def _stored(cache_dir: Path) -> Path:
    return next(path for path in (cache_dir / "pseudo_labels").iterdir() if path.is_dir())


def test_a_teacher_that_is_sure_of_nothing_is_refused(train_places: Places, make_config: Make, runtime: RuntimeFlags) -> None:
    config = _config(make_config, "private", teacher={**TEACHER, "min_confidence": 1.0})
    with pytest.raises(BadInput, match=r"sure of no joint in any of 64 views: lower teacher\.min_confidence, which is 1"):
        open_trial_data(config, train_places, runtime)


def test_crops_cut_from_labels_are_refused_where_views_would_show_them(
    train_places: Places, make_config: Make, runtime: RuntimeFlags, key: SweepKey
) -> None:
    header = open_dataset("private", train_places).manifest.header.model_dump()
    records = [draw_record("private", seed=2, index=index) for index in range(64)]
    write_shards(train_places.data_dir / "annotated", records, header=DatasetHeader(**{**header, "name": "annotated", "crops": "labels"}))
    with pytest.raises(Refused, match="crops of annotated were cut from annotations"):
        open_trial_data(_config(make_config, "private", data__private="annotated"), train_places, runtime)
    plain = make_config("dpsgd", labels="private", data__private="annotated")
    assert _run(plain, runtime, train_places, key=key)[-1].done


def test_regions_and_teachers_are_admitted_only_where_they_mean_something(make_config: Make) -> None:
    with pytest.raises(BadInput, match="split h finds the region head by keypoints"):
        make_config("feature", labels="private", split={"name": "h", "transform": "pixelate", "cell_px": 8, "region": "head"})
    with pytest.raises(BadInput, match="labels public needs no teacher"):
        make_config("feature", teacher=TEACHER)
