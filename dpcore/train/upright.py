"""Turns the crops of a dataset upright, as `data.canonical_rotation` asks for it.

| crops | what decides their turns |
|---|---|
| PRIVATE, in a trial without a split | each record's own pixels: preprocessing of one record, which adds no sensitivity |
| PRIVATE, in a trial with a split | the record's public view ψ(x) alone, for the crop and for its view |
| PUBLIC (stage, subspace, validation) | their own pixels |

*Guarantees*: a turned public view is a function of ψ(x). If the sharp picture decided, each view would tell how the detector read it.

Turns are made once per dataset and detector, and kept in the cache: `turns/<key>/turns.npy`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dpcore.config import Places, SplitConfig, TrialConfig, digest_of
from dpcore.data.catalog import shown_to
from dpcore.data.folders import cached_folder
from dpcore.data.framing import Turned
from dpcore.data.shards import ShardSet, iterate_rows
from dpcore.data.views import META_NAME, StoredViews, build_views
from dpcore.durable import write_json
from dpcore.errors import BadInput
from dpcore.inference.upright import UprightDetector
from dpcore.train.sources import CropSource

TURNS_FILE = "turns.npy"


def as_read(dataset: ShardSet, config: TrialConfig, places: Places, detector: UprightDetector | None = None) -> ShardSet:
    """A dataset as the network of a trial reads it, each crop turned by its own pixels where the trial turns crops.

    Args:
        dataset: PUBLIC, or private records that no public view stands beside.
        config: the trial. places: where detectors and caches lie.
        detector: that of the trial, where it is at hand.

    Raises:
        BadInput: the crops are not square, or the detector is missing.
    """
    shown = shown_to(config.model, dataset)
    if config.data.canonical_rotation is None:
        return shown
    detector = detector or UprightDetector.of(config.data, places)
    assert detector is not None  # the config names one
    return _turned(shown, shown, shown.identity, detector, places)


def private_as_read(dataset: ShardSet, config: TrialConfig, places: Places) -> ShardSet:
    """The dataset in the private place as the network of a trial reads it.

    Guarantees: where the trial has a split, the turns are a function of the stored public views.

    Raises:
        BadInput: the crops are not square, or the detector is missing.
    """
    shown = shown_to(config.model, dataset)
    detector = UprightDetector.of(config.data, places)
    if detector is None:
        return shown
    if config.split is None:
        return _turned(shown, shown, shown.identity, detector, places)
    views = build_views(shown, config.split, places)
    return _turned(shown, views, views.digest, detector, places)


def views_as_read(dataset: ShardSet, split: SplitConfig, places: Places) -> StoredViews:
    """The stored public views of what `private_as_read` gave, turned as its crops are. What is stored is not turned."""
    if not isinstance(dataset.frame, Turned):
        return build_views(dataset, split, places)
    return build_views(dataset.stored, split, places).turned(dataset.frame)


def _turned(shown: ShardSet, seen: CropSource, digest: str, detector: UprightDetector, places: Places) -> ShardSet:
    """`shown`, turned by what the detector says of `seen`, whose content is named by `digest`."""
    height, width = shown.manifest.height_px, shown.manifest.width_px
    if height != width:
        raise BadInput(
            f"data.canonical_rotation turns square crops, and those of {shown.manifest.name} are {height}x{width} px: import square ones"
        )
    key = digest_of({"detector": detector.name, "seen": digest})
    target = places.cache_dir / "turns" / key

    def build(folder: Path) -> None:
        np.save(folder / TURNS_FILE, np.concatenate([detector.turns(seen.images(rows)) for rows in iterate_rows(shown)]))
        write_json(folder / META_NAME, {"datasets": [shown.source.identity]})

    cached_folder(target, build, private=shown.manifest.role == "PRIVATE")
    turns = np.load(target / TURNS_FILE, allow_pickle=False)
    return shown.shown_in(Turned(side_px=height, mark=f"turned {key}", turns=turns))
