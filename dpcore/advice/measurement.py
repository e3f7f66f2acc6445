"""Measures the gradients of PUBLIC people at the public start: inner products alone, in the full space and in public subspaces.

*Guarantees*: nothing PRIVATE is opened. PUBLIC people stand for the private ones; their views are made as those of private people would be.

A subspace is fitted to other people than are measured: with the gradients that it was fitted to it would keep too much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpcore.advice.prediction import Gradients, InnerProducts
from dpcore.config import Places, RuntimeFlags, TrialConfig
from dpcore.data.catalog import check_sizes
from dpcore.data.shards import ShardSet
from dpcore.data.views import build_views
from dpcore.errors import BadInput
from dpcore.model.safety.dp_safe import require_dp_safe
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.privacy.randomness import Indices, PublicStreams
from dpcore.privacy.subspace import SubspaceBasis, fit_basis_in_place, room_for_rows
from dpcore.train.evaluator import training_loss
from dpcore.train.inputs import NO_AUGMENTATION, InputBuilder, device_of, labels_of
from dpcore.train.optimizer import start_scales
from dpcore.train.predictions import HearsProgress, hears_nothing
from dpcore.train.sources import LabelledViews, Records
from dpcore.train.stages import started_network
from dpcore.train.trial_data import public_side
from dpcore.train.upright import as_read, private_as_read

MOST_PEOPLE = 128
LEAST_PEOPLE = 16
"""Moments leave out the products of a person with itself; of fewer people little is left."""
MOST_BYTES = 2 * 2**30
"""Of all gradients that are held at once."""
_ROWS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class GradientsAsked:
    """What is asked of a measurement.

    Attributes:
        ranks: of the subspaces.
        people: how many are measured at most.
        residuals: λ, where the subspace is fitted to residuals of pairs and not to plain gradients.
    """

    ranks: tuple[int, ...] = ()
    people: int = MOST_PEOPLE
    residuals: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PublicGradients:
    """What a measurement gives.

    Attributes:
        gradients: the products.
        people: how many were measured. basis_people: to how many others the subspace was fitted.
        parameters: P, of the trained part.
        left_out: ranks that so few people give no subspace of.
    """

    gradients: Gradients
    people: int
    basis_people: int
    parameters: int
    left_out: tuple[int, ...] = ()


def measured_gradients(
    config: TrialConfig,
    *,
    stand_in: ShardSet,
    public: ShardSet,
    wanted: GradientsAsked,
    places: Places,
    runtime: RuntimeFlags,
    on_progress: HearsProgress = hears_nothing,
) -> PublicGradients:
    """The products of gradients at the start of a trial's private steps.

    Args:
        config: the trial: its network, loss, start, and its split where it has one.
        stand_in: PUBLIC people in the place of the private ones; it may be `public` itself.
        public: the PUBLIC dataset, with the skeleton of `stand_in`. The public start and the subspace come from it.
        wanted: what is measured.
        places, runtime: where caches lie, and how gradients are computed.
        on_progress: hears how many gradients of how many are there.

    Raises:
        BadInput: a dataset is not PUBLIC, its crops are of another size, or too few people, or too much memory for them.
    """
    for dataset in (stand_in, public):
        if dataset.manifest.role != "PUBLIC":
            raise BadInput(f"advice is made from PUBLIC data alone, and {dataset.manifest.name} is PRIVATE: give a PUBLIC dataset")
    same = stand_in is public
    stand_in = private_as_read(stand_in, config, places)
    public = stand_in if same else as_read(public, config, places)
    check_sizes(config, (stand_in, public))
    views = None if config.split is None else public_side(config, stand_in, public=public, places=places, runtime=runtime)
    network = started_network(config, public=public, views=views, places=places, runtime=runtime)
    split = network.split(config.model.freeze)
    require_dp_safe(split.stem, split.tail)
    builder = InputBuilder.for_split(split, model=config.model, places=places, device=device_of(runtime))
    scales = start_scales(config.optimizer.scale, split.tail)
    engine = GradientEngine(split.tail, training_loss(config, network.skeleton), precision=runtime.precision, scales=scales)
    try:
        return _Measurement(config, engine, builder, wanted, on_progress).of(stand_in, public, views)
    finally:
        engine.close()


class _Measurement:
    """The rows of a few people, and their products."""

    def __init__(
        self, config: TrialConfig, engine: GradientEngine, builder: InputBuilder, wanted: GradientsAsked, on_progress: HearsProgress
    ) -> None:
        self._config, self._engine, self._builder, self._wanted = config, engine, builder, wanted
        self._on_progress, self._done, self._total = on_progress, 0, 0

    def of(self, stand_in: ShardSet, public: ShardSet, views: LabelledViews | None) -> PublicGradients:
        """Fits the subspace, then measures."""
        source = public if self._config.subspace.source == "public" else stand_in
        chosen, others = self._chosen(stand_in, source)
        fitting = tuple(rank for rank in self._wanted.ranks if rank <= min(len(others), self._engine.parameter_count))
        basis_views = views if source is stand_in else self._views_of(public)
        self._total = (1 + (views is not None)) * len(chosen) + len(others) * bool(fitting) * self._rows_a_basis_person()
        self._on_progress(0, self._total)
        basis = self._basis(self._records(source, basis_views), others, max(fitting)) if fitting else None
        records = self._records(stand_in, views)
        rows = self._rows(lambda some: records.batch(some, None), chosen)
        seen = None if views is None else self._rows(lambda some: records.view_batch(some, None), chosen)
        return PublicGradients(
            gradients=_products(rows, seen, basis, fitting),
            people=len(chosen),
            basis_people=len(others) if fitting else 0,
            parameters=self._engine.parameter_count,
            left_out=tuple(rank for rank in self._wanted.ranks if rank not in fitting),
        )

    def _chosen(self, stand_in: ShardSet, source: ShardSet) -> tuple[Indices, Indices]:
        """Whom to measure, and to whom the subspace is fitted: others, where both are from one dataset."""
        generator, wanted = PublicStreams(self._config.seed).generator("advice"), self._wanted
        people, examples = _labelled(stand_in, generator), self._config.subspace.examples if wanted.ranks else 0
        most = self._room(halves=2 if self._config.split is not None else 1, examples=examples)
        if source is not stand_in:
            chosen, others = people, _labelled(source, generator)
        elif wanted.ranks:
            half = min(len(people) - len(people) // 2, wanted.people)
            chosen, others = people[:half], people[half:]
        else:
            chosen, others = people, people[:0]
        chosen = chosen[: min(most, wanted.people)]
        if len(chosen) < LEAST_PEOPLE:
            raise BadInput(
                f"advice needs the gradients of {LEAST_PEOPLE} labelled people, and {stand_in.manifest.name} leaves {len(chosen)}; "
                "give a larger PUBLIC dataset"
            )
        return chosen, others[: min(most, examples)]

    def _room(self, *, halves: int, examples: int) -> int:
        """How many people's gradients fit into memory.

        Raises:
            BadInput: not even the least number.
        """
        a_row = 4 * self._engine.parameter_count
        groups = halves + bool(examples)
        most = int(MOST_BYTES // (a_row * groups))
        if most < LEAST_PEOPLE:
            raise BadInput(
                f"advice holds the gradients of {LEAST_PEOPLE} people at once, and {self._engine.parameter_count:,} trained parameters "
                f"take {a_row * groups * LEAST_PEOPLE / 1e9:.1f} GB for them; ask for a model.freeze that trains less"
            )
        return most

    def _views_of(self, public: ShardSet) -> LabelledViews | None:
        """The views of the PUBLIC dataset, where a subspace is fitted to residuals."""
        if self._wanted.residuals is None or self._config.split is None:
            return None
        return LabelledViews(build_views(public, self._config.split, self._builder.places), labels_of(public))

    def _rows_a_basis_person(self) -> int:
        return 1 if self._wanted.residuals is None else 2

    def _records(self, dataset: ShardSet, views: LabelledViews | None) -> Records:
        return self._builder.records(dataset, views, NO_AUGMENTATION)

    def _basis(self, records: Records, people: Indices, rank: int) -> SubspaceBasis:
        """The subspace as a trial would fit it, of these people."""
        rows = room_for_rows(len(people), self._engine.parameter_count, rank, device=self._engine.device)
        places = iter([row for part in rows for row in part])
        of_views = self._config.subspace.source == "public_view"
        for some in _chunks(people):
            found = self._heard(records.view_batch(some, None) if of_views else records.batch(some, None))
            if self._wanted.residuals is not None:
                found = found - self._wanted.residuals * self._heard(records.view_batch(some, None))
            for row in found:
                next(places).copy_(row)
        return fit_basis_in_place(rows, rank)

    def _rows(self, batch_of: Callable[[Indices], Batch], people: Indices) -> Tensor:
        return torch.cat([self._heard(batch_of(some)) for some in _chunks(people)])

    def _heard(self, batch: Batch) -> Tensor:
        """The rows of a batch; says that they are there."""
        rows = self._engine.rows(batch)
        self._done += len(rows)
        self._on_progress(self._done, self._total)
        return rows


def _labelled(dataset: ShardSet, generator: np.random.Generator) -> Indices:
    """The people who show a joint, in random order."""
    return generator.permutation(np.flatnonzero(dataset.visible.any(axis=1))).astype(np.int64)


def _chunks(people: Indices) -> list[Indices]:
    return [people[start : start + _ROWS_AT_ONCE] for start in range(0, len(people), _ROWS_AT_ONCE)]


def _products(rows: Tensor, seen: Tensor | None, basis: SubspaceBasis | None, ranks: Sequence[int]) -> Gradients:
    """All products. Non-finite rows were refused when the subspace was fitted, or are refused here."""
    for one in (rows, seen):
        if one is not None and not bool(torch.isfinite(one).all()):
            raise BadInput("a public gradient is not finite: lower the learning rate of the public stages or check the data")
    full = _products_in(rows, seen, rows.shape[1])
    if basis is None:
        return Gradients(full=full, projected={})
    plain, views = basis.project(rows), None if seen is None else basis.project(seen)
    inside = {rank: _products_in(plain[:, :rank], None if views is None else views[:, :rank], rank) for rank in ranks}
    return Gradients(full=full, projected=inside)


def _products_in(rows: Tensor, seen: Tensor | None, dimension: int) -> InnerProducts:
    def product(first: Tensor, second: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        total = torch.zeros(len(first), len(second), dtype=torch.float64)
        for one, other in zip(torch.split(first, 32_768, dim=1), torch.split(second, 32_768, dim=1), strict=True):
            total += (one.double() @ other.double().T).cpu()
        return np.asarray(total.numpy())

    if seen is None:
        return InnerProducts(dimension=dimension, plain=product(rows, rows))
    views = seen.double().square().sum(dim=1).cpu().numpy()
    return InnerProducts(dimension=dimension, plain=product(rows, rows), cross=product(rows, seen), views=views)
