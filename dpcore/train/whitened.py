"""Fits what the inputs of a head are whitened by, once per node, to the pictures of the PUBLIC dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from dpcore.config import Places, RuntimeFlags, digest_of
from dpcore.data.folders import cached_folder
from dpcore.data.shards import ShardSet
from dpcore.data.transforms import to_tensor
from dpcore.durable import write_json
from dpcore.model.freezing import WHITENING
from dpcore.model.network import PoseNetwork, load_weights, weights_digest
from dpcore.train.rounding import rounding_of

MOST_PEOPLE = 1024
"""A covariance of 300 channels by 1,024 pictures of 576 cells has 2,000 cells a channel."""
WHITENING_FILE = "whitening.safetensors"
_ROWS_AT_ONCE = 32


def whiten(network: PoseNetwork, public: ShardSet, *, places: Places, runtime: RuntimeFlags) -> None:
    """Sets the whitening of `network` by the features of the first people of `public`, at the weights of now.

    *Guarantees*: a function of public weights and of PUBLIC pictures. No label is read. Fixed before any stage.

    Raises:
        BadInput: the data give no covariance.
    """
    part = network.parts[WHITENING]
    key = {"whitening": 1, "start": weights_digest(network.state_dict()), "data": public.identity, "rounding": rounding_of(runtime)}
    target = places.cache_dir / "whitening" / digest_of(key)

    def build(folder: Path) -> None:
        network.fit_whitening(_pictures(public))
        save_file({name: tensor.contiguous() for name, tensor in part.state_dict().items()}, folder / WHITENING_FILE)
        write_json(folder / "meta.json", {"datasets": [public.source.identity]})

    cached_folder(target, build, private=False)
    load_weights(part, load_file(target / WHITENING_FILE), where=str(target))


def _pictures(public: ShardSet) -> Iterator[Tensor]:
    count = min(MOST_PEOPLE, len(public))
    for start in range(0, count, _ROWS_AT_ONCE):
        yield to_tensor(public.images(np.arange(start, min(start + _ROWS_AT_ONCE, count))))
