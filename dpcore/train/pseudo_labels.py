"""Pseudo-labels ŷ = teacher(ψ(x)), which replace private labels wherever the private dataset is used publicly.

The teacher is a public model (see `stages.teacher_network`) and reads stored views. So ŷ depends only on PUBLIC data and on what is
published anyway. Public term, subspace, stages, floor, control and the λ-part of a residual may use it at no cost. The true labels enter
only the private half of a pair. The teacher's confidence decides which joints count as visible, because an annotator's visibility
would be a label.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from dpcore.config import EvaluationConfig, Places, RuntimeFlags, TrialConfig, digest_of
from dpcore.data.folders import cached_folder
from dpcore.data.shards import ShardSet
from dpcore.data.views import META_NAME, StoredViews, build_views
from dpcore.durable import read_json, write_json
from dpcore.errors import BadInput, Corrupt
from dpcore.inference.reading import PoseReading
from dpcore.model.network import PoseNetwork, weights_digest
from dpcore.pose.skeleton import Skeleton
from dpcore.train.inputs import device_of, labels_of
from dpcore.train.predictions import predict
from dpcore.train.rounding import rounding_of
from dpcore.train.sources import ImageInputs, LabelledViews, Labels
from dpcore.train.stages import teacher_network

PSEUDO_LABELS_VERSION = 2
LABELS_FILE = "labels.safetensors"


def pseudo_labelled(views: StoredViews, config: TrialConfig, *, public: ShardSet, places: Places, runtime: RuntimeFlags) -> LabelledViews:
    """The stored views of the private dataset with the labels that a public teacher gives them.

    Guarantees: they depend only on `views`, `public`, the config and the public weights that it names. Nothing else is available here.
    They are made once, then read. The key holds views, teacher and settings. The file has mode 0700, like the views.

    Args:
        views: ψ(x) of the private dataset.
        config: the trial; it has a split.
        public: the PUBLIC dataset that the teacher learns from, with the skeleton of the private one.
        places, runtime: where caches lie, and how the teacher is computed.

    Raises:
        BadInput: the teacher is sure of no joint, or a setting does not fit.
        Corrupt: stored labels differ from those that were written.
    """
    if config.split is None:
        raise BadInput("pseudo-labels are read from public views: give the config a split")
    seen = LabelledViews(build_views(public, config.split, places), labels_of(public))
    teacher = teacher_network(config, seen, public=public, places=places, runtime=runtime)
    name = weights_digest(teacher.state_dict())
    settings = {"min_confidence": config.teacher.min_confidence, "model": config.model.model_dump(mode="json")}
    document = {"version": PSEUDO_LABELS_VERSION, "views": views.digest, "teacher": name, "rounding": rounding_of(runtime)}
    target = places.cache_dir / "pseudo_labels" / digest_of({**document, **settings})
    cached_folder(target, lambda folder: _write(folder, _labels_by(teacher, views, config, runtime, public.skeleton)), private=True)
    return LabelledViews(views, _read(target, config, public.skeleton), teacher=name)


def _labels_by(teacher: PoseNetwork, views: StoredViews, config: TrialConfig, runtime: RuntimeFlags, skeleton: Skeleton) -> Labels:
    """The teacher's predictions on all views. Joints that it is not sure of are not visible and lie at the origin."""
    device = device_of(runtime)
    reading = PoseReading.of(config.model, EvaluationConfig(), skeleton)
    keypoints, confidence = predict(teacher.to(device), [ImageInputs(views, None, device)], reading)
    visible = confidence >= config.teacher.min_confidence
    if not bool(visible.any()):
        raise BadInput(
            f"the teacher is sure of no joint in any of {len(views)} views: lower teacher.min_confidence, which is "
            f"{config.teacher.min_confidence:g}, or raise teacher.steps"
        )
    placed = torch.where(visible.unsqueeze(-1), keypoints, torch.zeros_like(keypoints))
    return Labels(placed.numpy(), visible.numpy(), config.model.input_height_px, config.model.input_width_px, skeleton)


def _write(folder: Path, labels: Labels) -> None:
    save_file({"keypoints": labels.keypoints, "visible": labels.visible}, folder / LABELS_FILE)
    write_json(folder / META_NAME, {"digest": labels.digest, "visible_frac": float(labels.visible.mean())})


def _read(folder: Path, config: TrialConfig, skeleton: Skeleton) -> Labels:
    try:
        stored = load_file(folder / LABELS_FILE)
        labels = Labels(stored["keypoints"], stored["visible"], config.model.input_height_px, config.model.input_width_px, skeleton)
    except (SafetensorError, FileNotFoundError, KeyError) as error:
        raise Corrupt(f"{folder / LABELS_FILE} cannot be read ({error}); remove {folder} and run again") from error
    if labels.digest != read_json(folder / META_NAME)["digest"]:
        raise Corrupt(f"{folder / LABELS_FILE}: its labels are not those that were written; remove {folder} and run again")
    return labels
