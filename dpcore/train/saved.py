"""Stores trained models on disk: weights as safetensors, and everything else that is needed to use them as plain JSON.

model/model.safetensors   every weight of the network
model/model.json          the config, what the backbone is built again from (a folded one: its topology), the skeleton, and what is known of
                          the result; `sweeps.models.claims` adds a copy of the claim
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dpcore.config import TrialConfig, parse_config
from dpcore.data.folders import new_folder
from dpcore.durable import read_json, write_json
from dpcore.errors import BadInput, Corrupt
from dpcore.inference.upright import UprightDetector
from dpcore.model.built import build_backbone
from dpcore.model.network import PoseNetwork, assemble_network, load_weights, weights_digest
from dpcore.pose.skeleton import MPII_16, Skeleton

MODEL_FOLDER = "model"
WEIGHTS_FILE = "model.safetensors"
DOCUMENT_FILE = "model.json"
DETECTOR = "detector."
"""Beginning of the names of tensors of the detector that turns crops upright."""
BOX_SCALE = 1.25
"""The margin around a person's box that importers use, as HRNet does."""


@dataclass(frozen=True)
class SavedModel:
    """A loaded network in evaluation mode, the config that trained it, its stored result, the joints that it predicts, the margin
    around a person's box in the crops that it learned from, and the detector that turns crops upright, where it learned from such."""

    network: PoseNetwork
    config: TrialConfig
    meta: Mapping[str, Any]
    skeleton: Skeleton = MPII_16
    box_scale: float = BOX_SCALE
    detector: UprightDetector | None = None


def save_model(
    folder: Path,
    network: PoseNetwork,
    *,
    config: TrialConfig,
    meta: Mapping[str, Any],
    skeleton: Skeleton = MPII_16,
    box_scale: float = BOX_SCALE,
    detector: UprightDetector | None = None,
) -> None:
    """Writes a model as a new folder, completely or not at all. `skeleton` and `box_scale`: of the dataset that it was trained for.
    `detector`: what turns crops upright for it. It goes along, so that the folder stands alone.

    Raises:
        Refused: the folder exists.
    """
    topology = None if network.document is None else dict(network.document)
    tensors = dict(network.state_dict())
    if detector is not None:
        tensors |= {f"{DETECTOR}{name}": tensor for name, tensor in detector.network.state_dict().items()}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    document = {
        "config": config.model_dump(mode="json"),
        "topology": topology,
        "weights_digest": weights_digest(state),
        "skeleton": skeleton.model_dump(mode="json"),
        "box_scale": box_scale,
        **({} if detector is None else {"detector": dict(detector.network.document or {})}),
        "meta": dict(meta),
    }
    with new_folder(folder, private=False) as temporary:
        save_file(state, temporary / WEIGHTS_FILE)
        write_json(temporary / DOCUMENT_FILE, document)


def load_model(folder: Path) -> SavedModel:
    """Reads what `save_model` wrote, from its folder or from the trial's folder around it. Nothing is unpickled. A model of an earlier
    version names no skeleton and no margin: it predicts mpii_16 on crops with HRNet's.

    Raises:
        BadInput: the folder holds no model.
        Corrupt: the weights differ from those that were written.
    """
    found = next((place for place in (folder, folder / MODEL_FOLDER) if (place / DOCUMENT_FILE).is_file()), None)
    if found is None:
        raise BadInput(f"{folder}: no {DOCUMENT_FILE} there or in {MODEL_FOLDER}/; give the folder of a finished trial")
    document = read_json(found / DOCUMENT_FILE)
    config = parse_config(TrialConfig, document["config"], where="config")
    skeleton = parse_config(Skeleton, document["skeleton"], where="skeleton") if "skeleton" in document else MPII_16
    network = assemble_network(config.model, build_backbone(config.model, None, document["topology"]), skeleton=skeleton)
    try:
        state = load_file(found / WEIGHTS_FILE)
    except (SafetensorError, FileNotFoundError) as error:
        raise Corrupt(f"{found / WEIGHTS_FILE}: {error}; restore the file from a copy") from error
    own = {name: tensor for name, tensor in state.items() if not name.startswith(DETECTOR)}
    load_weights(network, own, where=str(found / WEIGHTS_FILE))
    if weights_digest(state) != document["weights_digest"]:
        raise Corrupt(f"{found / WEIGHTS_FILE}: the weights are not those that {DOCUMENT_FILE} was written for; restore both from a copy")
    margin, detector = float(document.get("box_scale", BOX_SCALE)), None
    if config.data.canonical_rotation is not None:
        others = {name.removeprefix(DETECTOR): tensor for name, tensor in state.items() if name.startswith(DETECTOR)}
        detector = UprightDetector.stored(config.data, document["detector"], others, where=str(found / WEIGHTS_FILE))
    return SavedModel(network.eval(), config, document["meta"], skeleton, margin, detector)
