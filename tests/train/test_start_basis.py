"""The subspace of the start is fitted once, shared as one file, and is bit for bit what a trial would fit alone."""

import json
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planned_trials import handed

from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.data.caches import describe_dataset, purge_caches
from dpcore.data.folders import SUMS_NAME
from dpcore.durable import read_json
from dpcore.errors import BadInput, Corrupt, NotReplayable, OutOfMemory
from dpcore.model.network import codec_of
from dpcore.privacy.basis_fit import fit_to_public
from dpcore.privacy.per_example import GradientEngine
from dpcore.privacy.randomness import PrivateStreams, SweepKey
from dpcore.privacy.subspace import SubspaceBasis
from dpcore.train import start_basis as start_basis_module
from dpcore.train import trainer
from dpcore.train.evaluator import loss_of
from dpcore.train.inputs import InputBuilder
from dpcore.train.private_steps import sources_of
from dpcore.train.stages import started_network
from dpcore.train.start_basis import StartBasis, start_basis
from dpcore.train.trial_data import TrialData, open_trial_data

Make = Callable[..., TrialConfig]


@pytest.fixture
def places(train_places: Places, tmp_path: Path) -> Places:
    """The data of the session and a cache in which nobody has fitted anything."""
    return Places(data_dir=train_places.data_dir, cache_dir=tmp_path / "cache")


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rank of each fit that was made."""
    made: list[int] = []

    def counting(config: TrialConfig, engine: GradientEngine, **given: Any) -> Any:
        made.append(config.subspace.rank)
        return fit_to_public(config, engine, **given)

    monkeypatch.setattr(start_basis_module, "fit_to_public", counting)
    return made


def basis_of(config: TrialConfig, places: Places, runtime: RuntimeFlags | None = None, data: TrialData | None = None) -> StartBasis:
    """As a trial asks for it."""
    runtime = runtime or RuntimeFlags(physical_batch_size=16)
    data = data or open_trial_data(config, places, runtime)
    network = started_network(config, public=data.public, views=data.views, places=places, runtime=runtime)
    split = network.split(config.model.freeze)
    builder = InputBuilder.for_split(split, model=config.model, places=places, device=torch.device("cpu"))
    engine = GradientEngine(split.tail, loss_of(codec_of(config.model)))
    sources = sources_of(config, data=data, builder=builder)
    return start_basis(config, engine, sources=sources, data=data, builder=builder, runtime=runtime)


def flags(largest_rank: int | None) -> RuntimeFlags:
    return RuntimeFlags(physical_batch_size=16, report_every_steps=2, checkpoint_every_steps=2, largest_rank=largest_rank)


def told(config: TrialConfig, runtime: RuntimeFlags, places: Places, folder: Path | None = None) -> list[str]:
    """The digests of a trial's reports."""
    reports = trainer.run_trial(config, runtime, handed(config, places=places, trial_id="t", key=SweepKey(bytes(32)), folder=folder))
    return [report.weights_digest for report in reports]


@pytest.mark.parametrize(("source", "gradients"), [("public", "plain"), ("public_view", "plain"), ("public", "residual")])
def test_a_trial_cuts_from_the_shared_basis_what_it_would_fit_alone(
    source: str, gradients: str, places: Places, make_config: Make, tmp_path: Path, fits: list[int]
) -> None:
    method = "projected" if (source, gradients) == ("public", "plain") else "feature_projected"
    alone = Places(data_dir=places.data_dir, cache_dir=tmp_path / "other")
    for rank in (1, 3, 7, 16):
        config = make_config(method, subspace={"rank": rank, "examples": 16, "source": source, "gradients": gradients})
        shared, own = basis_of(config, places, flags(16)), basis_of(config, alone)
        assert shared.basis.directions is not None
        assert torch.equal(shared.basis.directions, own.basis.directions)
        assert shared.basis.directions.shape[0] == rank
        assert shared.digest == own.digest
    assert fits == [16, 1, 3, 7, 16]


def test_a_basis_of_residuals_spans_those_of_public_pairs_and_no_private_record_moves_it(places: Places, make_config: Make) -> None:
    def config(**paths: Any) -> TrialConfig:
        return make_config("feature_projected", subspace__gradients="residual", public_weight=0.7, **paths)

    data = open_trial_data(config(), places, flags(None))
    assert data.public_views is not None
    assert len(data.public_views.stored) == len(data.public)
    found = basis_of(config(), places, flags(None)).basis.directions
    plain = basis_of(make_config("feature_projected", public_weight=0.7), places, flags(None)).basis.directions
    other = basis_of(config(subspace__refresh_steps=3, private_weight=0.5), places, flags(None)).basis.directions
    less = basis_of(config().changed(public_weight=0.6), places, flags(None)).basis.directions
    assert found is not None
    assert torch.equal(found, other)
    assert not torch.equal(found, plain)
    assert not torch.equal(found, less)


def test_a_subspace_of_residuals_is_for_pairs_alone(make_config: Make) -> None:
    for method, source in (("projected", "public"), ("feature_projected", "public_view")):
        with pytest.raises(BadInput, match=r"gradients residual is for method feature_projected and subspace\.source public"):
            make_config(method, subspace__gradients="residual", subspace__source=source)


def test_a_trial_resumed_where_the_cache_is_gone_is_the_undisturbed_one(places: Places, make_config: Make, tmp_path: Path) -> None:
    config, folder = make_config("projected"), tmp_path / "trial"
    undisturbed = told(config, flags(16), places)
    running = trainer.run_trial(config, flags(16), handed(config, places=places, trial_id="t", key=SweepKey(bytes(32)), folder=folder))
    assert [next(running).weights_digest] == undisturbed[:1]
    running.close()
    elsewhere = Places(data_dir=places.data_dir, cache_dir=tmp_path / "elsewhere")
    assert told(config, flags(None), elsewhere, folder) == undisturbed


def test_a_trial_that_meets_another_basis_is_not_replayed_and_draws_other_noise(
    places: Places, make_config: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, folder, contexts = make_config("projected"), tmp_path / "trial", []

    def turned(*given: Any, **named: Any) -> SubspaceBasis:
        fitted = fit_to_public(*given, **named)
        assert fitted.directions is not None
        return SubspaceBasis(directions=-fitted.directions, parameter_count=fitted.parameter_count)

    def remembered(**given: Any) -> PrivateStreams:
        contexts.append(given["context"])
        return PrivateStreams(**given)

    monkeypatch.setattr(trainer, "PrivateStreams", remembered)
    next(trainer.run_trial(config, flags(None), handed(config, places=places, trial_id="t", key=SweepKey(bytes(32)), folder=folder)))
    monkeypatch.setattr(start_basis_module, "fit_to_public", turned)
    with pytest.raises(NotReplayable, match="subspace: "):
        told(config, flags(None), Places(data_dir=places.data_dir, cache_dir=tmp_path / "elsewhere"), folder)
    assert contexts[0] != contexts[1]


def test_one_of_many_that_start_at_once_fits_and_the_others_wait(places: Places, make_config: Make, fits: list[int]) -> None:
    configs = [make_config("projected", subspace={"rank": rank, "examples": 16}) for rank in (2, 5, 8)]
    basis_of(make_config("projected", subspace={"rank": 1, "examples": 16}), places)  # stage and features are there
    fits.clear()
    threads = [threading.Thread(target=basis_of, args=(config, places, flags(9))) for config in configs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fits == [9]


def test_a_fit_that_runs_out_of_memory_says_with_how_many_examples(
    places: Places, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **named: Any) -> SubspaceBasis:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(start_basis_module, "fit_to_public", full)
    with pytest.raises(OutOfMemory, match=r"the public subspace does not fit .* with 16 examples at once") as out:
        basis_of(make_config("projected"), places)
    assert out.value.physical_batch_size == 16
    assert not [path for path in (places.cache_dir / "bases").iterdir() if path.is_dir()]


def test_what_moves_a_direction_has_a_file_of_its_own(places: Places, make_config: Make, fits: list[int]) -> None:
    plain = make_config("projected")
    others = [
        make_config("projected", seed=1),
        make_config("projected", subspace={"rank": 4, "examples": 17}),
        make_config("projected", stages__public__steps=5),
        make_config("projected", model__freeze="early"),
        make_config("projected", model__label_sigma_bins=2.0),
        make_config("feature_projected", subspace={"rank": 4, "examples": 16, "source": "public_view"}),
    ]
    found = {basis_of(config, places).digest for config in (plain, *others)}
    assert len(found) == len(fits) == 1 + len(others)
    basis_of(plain, places, RuntimeFlags(physical_batch_size=8))
    basis_of(plain, places, RuntimeFlags(physical_batch_size=16, threads=2))
    assert len(fits) == 3 + len(others)


def test_other_labels_of_the_same_views_have_a_file_of_their_own(places: Places, make_config: Make, fits: list[int]) -> None:
    config = make_config("feature_projected", subspace={"rank": 4, "examples": 16, "source": "public_view"})
    data = open_trial_data(config, places, RuntimeFlags())
    assert data.views is not None
    mirrored = replace(data.views.labels, keypoints=63 - data.views.labels.keypoints)
    found = {basis_of(config, places, data=one).digest for one in (data, replace(data, views=replace(data.views, labels=mirrored)))}
    assert len(found) == len(fits) == 2


def test_other_methods_learning_rates_and_noise_share_one_file(places: Places, make_config: Make, fits: list[int]) -> None:
    for changes in ({}, {"clip_norm": 0.1}, {"epsilon": 2.0}, {"optimizer__learning_rate": 0.1}, {"stages__private__steps": 3}):
        basis_of(make_config("projected", **changes), places)
    basis_of(make_config("feature_projected"), places)
    assert fits == [4]


def test_a_larger_rank_than_this_trial_has_examples_for_is_another_trials(places: Places, make_config: Make, fits: list[int]) -> None:
    assert basis_of(make_config("projected"), places, flags(40)).basis.rank == 4
    assert fits == [16]
    with pytest.raises(BadInput, match="17 directions asked of a basis of rank 4"):
        basis_of(make_config("projected"), places, flags(40)).basis.leading(17, device=torch.device("cpu"))


def test_the_file_is_mapped_by_every_trial_and_a_damaged_one_is_refused(
    places: Places, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("projected")
    first = basis_of(config, places).basis.directions
    second = basis_of(config, places).basis.directions
    assert first is not None
    assert second is not None
    assert first.data_ptr() == second.data_ptr()
    (folder,) = [path for path in (places.cache_dir / "bases").iterdir() if path.is_dir()]
    with Path("/proc/self/maps").open() as maps:
        assert any(str(folder) in line for line in maps)
    (folder / SUMS_NAME).unlink()  # as 0.1.0 left it: with its sums it would be made anew
    stored = np.load(folder / "directions.npy")
    stored[0, 0] += 1e-3
    np.save(folder / "directions.npy", stored)
    with pytest.raises(Corrupt, match="not those that were written"):
        basis_of(config, places)


def test_files_from_public_views_are_for_their_owner_alone_and_purged_with_them(places: Places, make_config: Make) -> None:
    basis_of(make_config("projected"), places)
    (of_public,) = (places.cache_dir / "bases").glob("[!.]*")
    basis_of(make_config("feature_projected", subspace={"rank": 4, "examples": 16, "source": "public_view"}), places)
    (of_views,) = set((places.cache_dir / "bases").glob("[!.]*")) - {of_public}
    assert [stat.S_IMODE(path.stat().st_mode) for path in (of_public, of_views)] == [0o755, 0o700]
    assert read_json(of_public / "meta.json")["datasets"] == [describe_dataset("public", places).digest]
    assert "datasets" not in json.loads((of_views / "meta.json").read_text())
    assert of_views in purge_caches("private", places)
    assert of_public.is_dir()


def test_a_file_from_a_start_that_saw_views_is_for_its_owner_alone(places: Places, make_config: Make) -> None:
    start = {"start": "public_view", "stages__public_view": {"steps": 2, "batch_size": 8}}
    basis_of(make_config("feature_projected", subspace={"rank": 4, "examples": 16, "source": "public"}, **start), places)
    (folder,) = [path for path in (places.cache_dir / "bases").iterdir() if path.is_dir()]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "datasets" not in read_json(folder / "meta.json")
