"""The public subspace at the start of the private steps: fitted once per node, then shared by all trials as one mapped file.

A trial needs the leading `subspace.rank` directions of one basis that depends on its rank in no bit (`fit_basis`). So the first trial of a
start fits `RuntimeFlags.largest_rank` of them, and every trial maps the file and reads as many as it asks for. Whoever finds no file
makes one: the same directions, or, where the arithmetic differs, others under another digest, which the trial's identity and
the names of its secret streams hold.

    bases/<key>/directions.npy    Vᵀ (R, P) float32, strongest first
    bases/<key>/meta.json         a digest for each rank
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dpcore.config import MECHANISM_VERSION, RuntimeFlags, TrialConfig, digest_of
from dpcore.config.parsing import identity_of
from dpcore.data.folders import cached_folder
from dpcore.durable import read_json, write_json
from dpcore.errors import BadInput, Corrupt
from dpcore.gradients import ENGINE_VERSION
from dpcore.model.network import weights_digest
from dpcore.privacy.basis_fit import fit_to_public
from dpcore.privacy.per_example import GradientEngine
from dpcore.privacy.randomness import PublicStreams
from dpcore.privacy.sources import Sources
from dpcore.privacy.subspace import BASIS_VERSION, SubspaceBasis
from dpcore.train.inputs import InputBuilder
from dpcore.train.physical_batch import is_out_of_memory, out_of_memory
from dpcore.train.rounding import rounding_of
from dpcore.train.stages import loss_document
from dpcore.train.trial_data import TrialData

DIRECTIONS_FILE = "directions.npy"
META_FILE = "meta.json"


@dataclass(frozen=True, kw_only=True)
class StartBasis:
    """`basis` for the mechanism, and the `digest` of its bytes for the trial's identity."""

    basis: SubspaceBasis
    digest: str


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """An opened file. `digests`: by rank, of the first direction, of the first two, and so on."""

    basis: SubspaceBasis
    digests: tuple[str, ...]


_opened: dict[tuple[str, int, int], _Shared] = {}
"""What this process has verified, by path, mtime and size. A mapping costs no memory of its own."""


def start_basis(
    config: TrialConfig, engine: GradientEngine, *, sources: Sources, data: TrialData, builder: InputBuilder, runtime: RuntimeFlags
) -> StartBasis:
    """The subspace of a projected trial at the engine's weights, from this node's cache or fitted under its lock.

    Guarantees: a function of public weights, PUBLIC data or public views, and of the config; bit for bit what the trial would
    fit alone in step 0.

    Args:
        config: the trial. engine: at the start's weights.
        sources: the examples. data: names their content. builder: names the frozen stem, and where caches lie.
        runtime: how gradients are computed, with the physical batch settled, and the sweep's largest rank.

    Raises:
        BadInput: the examples span no subspace of that rank. OutOfMemory: they do not fit, with so many at once.
        Corrupt: the stored directions are not those that were written.
    """
    rank = config.subspace.rank
    if not isinstance(rank, int):
        raise BadInput(f"subspace.rank {rank} needs no fitted subspace")
    # the largest rank of a space may be another trial's, with more examples than this one has
    kept = max(rank, min(runtime.largest_rank or rank, config.subspace.examples, engine.parameter_count))
    target = builder.places.cache_dir / "bases" / _key(config, engine, data=data, builder=builder, runtime=runtime, kept=kept)
    of_public_data_alone = config.start == "public" and config.subspace.source == "public"

    def build(folder: Path) -> None:
        largest = config.changed(**{"subspace.rank": kept})
        fitted = _fitted(largest, engine, sources, physical_batch_size=_physical(runtime))
        _write(folder, fitted, datasets=[data.public.source.identity] if of_public_data_alone else None)

    cached_folder(target, build, private=not of_public_data_alone)
    shared = _open(target)
    return StartBasis(basis=shared.basis.leading(rank, device=engine.device), digest=shared.digests[rank - 1])


def _fitted(config: TrialConfig, engine: GradientEngine, sources: Sources, *, physical_batch_size: int) -> SubspaceBasis:
    streams = PublicStreams(config.seed)
    try:
        return fit_to_public(config, engine, sources=sources, streams=streams, step=0, physical_batch_size=physical_batch_size)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory("the public subspace", physical_batch_size) from error


def _key(config: TrialConfig, engine: GradientEngine, *, data: TrialData, builder: InputBuilder, runtime: RuntimeFlags, kept: int) -> str:
    """Equal exactly where the same bytes would be written."""
    examples: dict[str, Any] = {"data": data.public.identity}
    if config.subspace.source == "public_view" and data.views is not None:
        views = {"data": data.views.stored.digest, "labels": data.views.labels.digest}
        examples = {**views, "augmented": not config.augmentation.is_identity}  # then they are read without cached features
    if data.public_views is not None:
        examples |= {"views": data.public_views.stored.digest, "public_weight": config.public_weight}
    document = {
        "mechanism": MECHANISM_VERSION,
        "basis": BASIS_VERSION,
        "engine": ENGINE_VERSION,
        "model": identity_of(config.model),
        **({"code": dict(builder.code)} if builder.code else {}),
        "stem": None if builder.stem is None else builder.stem.name,
        "tail": weights_digest({"tail": engine.flat_weights()}),
        "examples": {**examples, "count": config.subspace.examples, "seed": config.seed},
        "rounding": {**rounding_of(runtime), "physical": _physical(runtime), "precision": runtime.precision},
        **loss_document(config),
        **({} if config.optimizer.scale == "absolute" else {"scale": config.optimizer.scale}),
        "kept": kept,
    }
    return digest_of(document)


def _physical(runtime: RuntimeFlags) -> int:
    if runtime.physical_batch_size == "auto":
        raise BadInput("a subspace is fitted after the physical batch size is settled: give it as a number")
    return runtime.physical_batch_size


def _write(folder: Path, fitted: SubspaceBasis, *, datasets: list[str] | None) -> None:
    if fitted.directions is None:
        raise BadInput("the full space needs no file")
    directions = fitted.directions.cpu().numpy()
    np.save(folder / DIRECTIONS_FILE, directions)
    write_json(folder / META_FILE, {"digests": _digests(directions), **({} if datasets is None else {"datasets": datasets})})


def _open(target: Path) -> _Shared:
    """Maps and verifies a file, once per process and state of the file."""
    path = target / DIRECTIONS_FILE
    if not path.is_file():
        raise Corrupt(f"{path} is missing; remove {target} and run again")
    state = path.stat()
    key = (str(path), state.st_mtime_ns, state.st_size)
    if key not in _opened:
        try:
            mapped = np.load(path, mmap_mode="c")  # pages are shared until somebody writes, which nobody does
        except (ValueError, OSError) as error:
            raise Corrupt(f"{path} cannot be read ({error}); remove {target} and run again") from None
        digests = _digests(mapped)
        if digests != read_json(target / META_FILE).get("digests"):
            raise Corrupt(f"{path}: its directions are not those that were written; remove {target} and run again")
        basis = SubspaceBasis(directions=torch.from_numpy(mapped), parameter_count=mapped.shape[1])
        _opened[key] = _Shared(basis=basis, digests=tuple(digests))
    return _opened[key]


def _digests(directions: NDArray[np.float32]) -> list[str]:
    """For each rank 32 hex digits over the directions up to it, from one pass over all."""
    running, found = hashlib.sha256(str(directions.shape[1:]).encode()), []
    for direction in directions:
        running.update(direction)
        found.append(running.hexdigest()[:32])
    return found
