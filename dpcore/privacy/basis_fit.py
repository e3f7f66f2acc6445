"""From public examples to their subspace: the one way by which data reach a basis."""

from __future__ import annotations

from torch import Tensor

from dpcore.config import TrialConfig
from dpcore.errors import BadInput
from dpcore.privacy.per_example import GradientEngine
from dpcore.privacy.randomness import Indices, PublicStreams, choose_without_replacement
from dpcore.privacy.sources import ExampleSource, RecordSource, Sources
from dpcore.privacy.subspace import SubspaceBasis, fit_basis_in_place, room_for_rows


def fit_to_public(
    config: TrialConfig, engine: GradientEngine, *, sources: Sources, streams: PublicStreams, step: int, physical_batch_size: int
) -> SubspaceBasis:
    """V from per-example gradients of public examples at the engine's weights; no private row can reach this.

    Memory: the gradients, once (m · P · 4 bytes), and those of one pass. The basis takes the place of the first of them.

    Args:
        config: with the rank, and where and how many the examples are.
        engine: gradients.
        sources: of these the PUBLIC dataset or the public views.
        streams: draw the examples of `step`.
        step: at whose weights it is fitted.
        physical_batch_size: examples a pass.

    Raises:
        BadInput: rank or source are missing, or the gradients span no subspace of that rank.
    """
    subspace = config.subspace
    source = sources.public if subspace.source == "public" else sources.views
    if source is None or not isinstance(subspace.rank, int):
        raise BadInput(f"method {config.method} needs subspace.rank and the source {subspace.source} of its subspace")
    generator = streams.generator("subspace_batch", step)
    indices = choose_without_replacement(generator, len(source), subspace.examples, what="subspace.examples")
    chunks = [indices[start : start + physical_batch_size] for start in range(0, len(indices), physical_batch_size)]
    rows = room_for_rows(len(indices), engine.parameter_count, subspace.rank, device=engine.device)
    places = iter([row for part in rows for row in part])
    for chunk in chunks:
        for row in _rows(config, engine, source, chunk):
            next(places).copy_(row)
    return fit_basis_in_place(rows, subspace.rank)


def _rows(config: TrialConfig, engine: GradientEngine, source: ExampleSource, chunk: Indices) -> Tensor:
    """Rows (m, P) of public examples: gradients, or residuals of their pairs as a private step takes them."""
    if config.subspace.gradients == "plain":
        return engine.rows(source.batch(chunk, None))
    if not isinstance(source, RecordSource) or config.public_weight is None:
        raise BadInput("subspace.gradients residual needs the views of the PUBLIC dataset")
    return engine.residual_rows(source.batch(chunk, None), source.view_batch(chunk, None), config.public_weight)
