"""The files of a folded network: `NAME_fp16.npz` (or `NAME_fp32.npz`) and `NAME_layers.json`. docs/folded-format.md specifies them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpcore.disk import naming_full_disk
from dpcore.durable import write_new_file
from dpcore.errors import Refused
from dpcore.model.folded import ARCHIVE_ENDINGS, archive_path, features_of, read_tensors
from dpcore.model.topology import Topology, read_topology
from dpcore.weights.folding import Array, FoldedNetwork


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """A folded network on disk.

    Attributes:
        path: folder and name, without an ending; what follows the data directory is `model.weights`.
        digest: of its layers' tensors.
        was_there: whether the same files lay there already.
    """

    path: Path
    topology: Topology
    digest: str
    was_there: bool = False


def tensors_digest(tensors: Mapping[str, Array]) -> str:
    """32 hex digits of sha256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}:{values.shape}:{values.dtype.str};".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:32]


def write_folded(network: FoldedNetwork, folder: Path, name: str) -> StoredWeights:
    """Writes both files, or neither. Files that hold the same already are left alone.

    Raises:
        Refused: files of that name are there and hold something else.
    """
    dtypes = {values.dtype.itemsize for values in network.tensors.values()}
    archive = folder / f"{name}{ARCHIVE_ENDINGS[0] if dtypes == {2} else ARCHIVE_ENDINGS[1]}"
    topology = folder / f"{name}_layers.json"
    content = json.dumps(network.document, indent=0, allow_nan=False).encode()
    stored = StoredWeights(path=folder / name, topology=network.topology, digest=tensors_digest(network.tensors))
    others = [folder / (name + ending) for ending in ARCHIVE_ENDINGS if (folder / (name + ending)).exists()]
    if others or topology.exists():
        is_same = others == [archive] and topology.is_file() and topology.read_bytes() == content
        if not is_same or tensors_digest(read_tensors(archive)) != stored.digest:
            raise Refused(f"{folder / name}: other weights of this name are there and are not overwritten; give --name or another --out")
        return StoredWeights(path=stored.path, topology=stored.topology, digest=stored.digest, was_there=True)
    folder.mkdir(parents=True, exist_ok=True)
    with naming_full_disk(archive), io.BytesIO() as buffer:
        np.savez(buffer, **network.tensors)  # type: ignore[arg-type]
        write_new_file(archive, buffer.getvalue())
        try:
            write_new_file(topology, content)
        except BaseException:
            archive.unlink()
            raise
    return stored


def stored_weights(path: Path) -> StoredWeights:
    """The weights at `path` (folder and name, without an ending), read whole and checked.

    Raises:
        BadInput: there are none. Corrupt: a file is damaged, or the two do not belong together.
    """
    topology = read_topology(path)
    archive = archive_path(path)
    tensors = read_tensors(archive)
    features_of(topology, tensors, [layer.name for layer in topology.layers], where=str(archive))
    own = {f"{layer.name}.{kind}" for layer in topology.layers for kind in ("weight", "bias")}
    return StoredWeights(path=path, topology=topology, digest=tensors_digest({name: tensors[name] for name in tensors if name in own}))
