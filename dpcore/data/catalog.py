"""Opens datasets by name, and checks which of them may be used together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dpcore.config import ModelConfig, Places, PrivacyUnit, TrialConfig, did_you_mean
from dpcore.config.metrics import PCKH_50
from dpcore.data.folders import locked
from dpcore.data.framing import Resized
from dpcore.data.manifest import SCHEMA_VERSION
from dpcore.data.shards import ShardSet, open_shards
from dpcore.data.synthetic import EMBEDDED, Embedded, settings_digest, synth
from dpcore.data.truth import truth_of
from dpcore.errors import BadInput, Refused
from dpcore.pose.metrics import METRICS, why_not

HELD_OUT_FRAC = 0.1
"""Of the public views: what training to convergence does not train on, rounded up."""
EMBEDDED_KIND = "datasets"
"""Folder below the cache directory for generated datasets."""


def open_dataset(name: str, places: Places) -> ShardSet:
    """The dataset of that name.

    `synthetic/public`, `synthetic/private` and `synthetic/validation` are generated on first use, once per cache. Any other name is a
    folder below the data directory, or an absolute path.

    Raises:
        BadInput: there is no such dataset.
        Corrupt: its files differ from its manifest.
    """
    if name in EMBEDDED:
        return _open_embedded(name, EMBEDDED[name], places)
    if name.startswith("synthetic/"):
        raise BadInput(f"no embedded dataset {name!r}{did_you_mean(name, list(EMBEDDED))}")
    folder = Path(name) if Path(name).is_absolute() else places.data_dir / name
    if not folder.is_dir():
        raise BadInput(
            f"dataset {name!r}: no folder {folder}. Make it with `dpsweep data import FORMAT ... --out {folder}`, "
            f"or use an embedded one: {', '.join(EMBEDDED)}"
        )
    return open_shards(folder)


def dataset_folder(name: str, places: Places) -> Path:
    """The folder of a dataset, even if it does not exist. Embedded datasets lie in the cache, keyed by what generates them."""
    if name not in EMBEDDED:
        return Path(name) if Path(name).is_absolute() else places.data_dir / name
    spec = EMBEDDED[name]
    key = f"{name.replace('/', '-')}-{settings_digest(spec.domain)}-{spec.count}-{spec.seed}-v{SCHEMA_VERSION}"
    return places.cache_dir / EMBEDDED_KIND / key


def check_roles(
    private: ShardSet, public: ShardSet, validation: ShardSet, *, private_validation: bool = False, rehearsal: bool = False
) -> None:
    """Refuses datasets in a place that their role does not allow. In a rehearsal a PUBLIC proxy takes the private place.

    Guarantees, if it returns: the private part is PRIVATE and the other datasets are PUBLIC. With `private_validation` the validation
    dataset is PRIVATE, and its scores are charged. No crop of the private part is in another dataset, byte for byte. A content
    hash does not find near-duplicates.

    Raises:
        Refused: the message names the dataset, its role, and what overlaps.
    """
    first = ("proxy", private, "PUBLIC") if rehearsal else ("private", private, "PRIVATE")
    of_validation = "PRIVATE" if private_validation else "PUBLIC"
    for place, dataset, role in (first, ("public", public, "PUBLIC"), ("validation", validation, of_validation)):
        if dataset.manifest.role != role:
            raise Refused(
                f"data.{place}: dataset {dataset.manifest.name} has the role {dataset.manifest.role}, {role} is needed; "
                f"give another dataset, or import it with --role {role} if that is what it is"
            )
    for place, dataset in (("public", public), ("validation", validation)):
        shared = np.intersect1d(private.content_hashes, dataset.content_hashes)
        if shared.size:
            row = int(np.flatnonzero(dataset.content_hashes == shared[0])[0])
            raise Refused(
                f"data.{place}: {shared.size} crops of {dataset.manifest.name} are also in the {first[0]} {private.manifest.name} "
                f"(the first is {dataset.source_ids[row]}); remove them from one of the two"
            )


def unit_ids(dataset: ShardSet, unit: PrivacyUnit) -> NDArray[np.str_]:
    """The unit of privacy that each example belongs to: (N,) str.

    Raises:
        Refused: an example does not name its unit.
    """
    ids = {"person": dataset.person_ids, "image": dataset.image_ids, "video": dataset.video_ids}[unit]
    nameless = int((ids == "").sum())
    if nameless:
        raise Refused(
            f"privacy_unit {unit}: {nameless} of the {len(dataset)} crops of {dataset.manifest.name} name no {unit}; import annotations "
            f"that name it, or use another privacy_unit"
        )
    return ids


def check_unit(private: ShardSet, unit: PrivacyUnit) -> None:
    """Refuses a private dataset that cannot be divided into units of privacy.

    A `person` is an annotation with the pixels of its crop. So crops of two people must not share a pixel of an image. Otherwise
    removing one person would leave their pixels in the other crop.

    Raises:
        Refused: an example names no unit, or crops of two people overlap or may overlap.
    """
    unit_ids(private, unit)
    if unit != "person":
        return
    order = np.argsort(private.image_ids, kind="stable")
    starts = np.flatnonzero(np.r_[True, private.image_ids[order][1:] != private.image_ids[order][:-1]])
    for rows in np.split(order, starts[1:]):
        if len(rows) > 1:
            _check_people_apart(private, rows)


def _check_people_apart(private: ShardSet, rows: NDArray[np.int64]) -> None:
    """`rows` are the crops of one image."""
    boxes, people = private.boxes_px[rows].astype(np.float64), private.person_ids[rows]
    others = people[:, None] != people[None, :]
    where = f"privacy_unit person: {private.manifest.name}, image {private.image_ids[rows[0]]}, with {len(rows)} crops"
    if others.any() and np.isnan(boxes).any():
        raise Refused(
            f"{where}: the positions of the crops are unknown, so they may overlap; import the dataset again, or use privacy_unit image"
        )
    low, high = boxes[:, :2], boxes[:, 2:]
    overlap = ((low[:, None] < high[None, :]) & (low[None, :] < high[:, None])).all(axis=-1)
    if (overlap & others).any():
        first, second = (private.source_ids[rows[i]] for i in np.argwhere(overlap & others)[0])
        raise Refused(f"{where}: the crops of {first} and {second} overlap, so each shows pixels of the other; use privacy_unit image")


def shown_to(model: ModelConfig, dataset: ShardSet) -> ShardSet:
    """A dataset's crops as a network reads them: in the frame that `model.crop_zoom` asks for, or as they are stored."""
    if model.crop_zoom is None:
        return dataset
    stored, wanted = (dataset.manifest.height_px, dataset.manifest.width_px), (model.input_height_px, model.input_width_px)
    if model.crop_zoom == 1 and stored == wanted:
        return dataset
    return dataset.shown_in(Resized(stored_px=stored, size_px=wanted, crop_zoom=model.crop_zoom))


def check_sizes(config: TrialConfig, datasets: Iterable[ShardSet]) -> None:
    """Refuses datasets whose crops are not of the size that the model takes.

    Raises:
        BadInput: names the dataset and both sizes.
    """
    wanted = (config.model.input_height_px, config.model.input_width_px)
    for dataset in datasets:
        given = (dataset.manifest.height_px, dataset.manifest.width_px)
        if given != wanted:
            raise BadInput(
                f"dataset {dataset.manifest.name} has crops of {given[0]}x{given[1]} px, the model takes {wanted[0]}x{wanted[1]}: "
                "import it again at that size, change model.input_height_px and model.input_width_px, or set model.crop_zoom (1 shows "
                "whole crops) to have them resized"
            )


def check_amounts(config: TrialConfig, *, private: ShardSet, public: ShardSet) -> None:
    """Refuses settings that ask for more examples than their dataset has. Batches are drawn without replacement and never clamped, so
    the trial would fail at its first step.

    | setting | is drawn from |
    |---|---|
    | stages.public.batch_size, teacher.batch_size | the PUBLIC dataset |
    | subspace.examples | the PUBLIC dataset, or the public views |
    | stages.public_view.batch_size | the public views; where it trains to convergence, without the held-out tenth |
    | public_batch_size | the public views, one of each privacy unit |

    Raises:
        BadInput: names the setting, the dataset and both numbers.
    """
    stages, views = config.stages, len(private)
    wanted = [("stages.public.batch_size", stages.public.batch_size if stages.public.steps else 0, len(public), public)]
    if config.labels == "private" and config.split is not None:
        wanted.append(("teacher.batch_size", config.teacher.batch_size, len(public), public))
    if isinstance(config.subspace.rank, int) and not config.is_control:
        source = public if config.subspace.source == "public" else private
        wanted.append(("subspace.examples", config.subspace.examples, len(source), source))
    if config.start == "public_view" and stages.public_view is not None:
        trained = views if stages.public_view.until is None else views - math.ceil(HELD_OUT_FRAC * views)
        wanted.append(("stages.public_view.batch_size", stages.public_view.batch_size, trained, private))
    if config.public_batch_size is not None:
        ids = {"person": private.person_ids, "image": private.image_ids, "video": private.video_ids}[config.privacy_unit]
        wanted.append(("public_batch_size", config.public_batch_size, len(np.unique(ids)), private))
    for setting, asked, there, dataset in wanted:
        if asked > there:
            raise BadInput(
                f"{setting} is {asked}, and dataset {dataset.manifest.name} has {there} to draw from: every trial would fail at its first "
                f"step; ask for at most {there}, or give more data"
            )


def check_scorable(validation: ShardSet, metric: str = PCKH_50) -> None:
    """Refuses PUBLIC validation data that give no score of a metric, before a trial is charged for it. Of PRIVATE data nothing is
    looked at.

    Raises:
        BadInput: names the dataset, what it lacks, and what to do.
    """
    if validation.manifest.role != "PUBLIC":
        return
    reason = why_not(METRICS.get(metric), truth_of(validation))
    if reason is not None:
        raise BadInput(f"data.validation {validation.manifest.name}: {reason}; sweep.metric is {metric}")


def check_crops(private: ShardSet) -> None:
    """Refuses a private dataset that cannot keep its labels private, because labels placed its crops.

    The public view of a crop shows its frame. A frame that was computed from keypoints reveals something about them.

    Raises:
        Refused: the message names the dataset and the remedy.
    """
    if private.manifest.crops == "labels":
        raise Refused(
            f"labels private: the crops of {private.manifest.name} were cut from annotations, and its public views show that; use labels "
            "public, or import boxes of a public detector with `dpsweep data import hrnet --crops detector`"
        )


def _open_embedded(name: str, spec: Embedded, places: Places) -> ShardSet:
    folder = dataset_folder(name, places)
    if not folder.is_dir():
        with locked(folder):
            if not folder.is_dir():
                synth(folder, spec.domain, count=spec.count, seed=spec.seed, role=spec.role, name=name)
    return open_shards(folder)
