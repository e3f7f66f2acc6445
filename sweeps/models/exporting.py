"""A folder that a model leaves in: weights, document, claim and card, and nothing of the sweep or of the data.

model.safetensors   every weight; the claim stands in its header too
model.json          config, what the network is built again from, scores, a copy of the claim
claim.json          claim, price, scores
README.md           the model card
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpcore.data.folders import new_folder
from dpcore.durable import read_json, write_json
from dpcore.errors import BadInput, Refused
from sweeps.models.claims import CLAIM_FILE, CLAIM_KEY, DOCUMENT_FILE, MODEL_FOLDER, WEIGHTS_FILE, ModelClaim, load_claim
from sweeps.models.model_card import CARD_FILE

PORTABLE_META = (
    "trial_id",
    "method",
    "fingerprint",
    "epsilon_target",
    "epsilon_spent",
    "delta",
    "noise_multiplier",
    "pckh_50",
    "pckh_10",
    "metric",
    "score",
    "steps",
)
"""What model.json tells of a run outside: the released result. No metric, no time, no fact of the machine."""


def check_export(source: Path, *, out: Path | None, onnx: Path | None) -> ModelClaim:
    """The claim of the model in `source`, which may leave, and whose new places are free.

    Raises:
        BadInput: no model there, its claim was cut off, or there is no folder for the file. Corrupt: the claim was altered.
        Refused: a place exists, or the model was trained on protected people without privacy.
    """
    made = load_claim(source)
    made.check_may_leave(str(source))
    for place in (out, onnx):
        if place is not None and place.exists():
            raise Refused(f"{place}: exists already and is not overwritten; give another name")
    if onnx is not None and not onnx.absolute().parent.is_dir():
        raise BadInput(f"--onnx {onnx}: there is no folder {onnx.absolute().parent}")
    return made


def export_folder(source: Path, out: Path) -> ModelClaim:
    """Writes the model in `source` as a new folder that stands alone, whole or not at all.

    Guarantees: only the files above leave, and model.json tells only `PORTABLE_META` of the run.

    Raises:
        BadInput: no model there, or its claim was cut off. Corrupt: claim or weights are not those that were written.
        Refused: `out` exists, or the model was trained on protected people without privacy.
    """
    from dpcore.train.saved import load_model

    made = check_export(source, out=out, onnx=None)
    load_model(source)  # holds the weights against their digest
    model = source if (source / DOCUMENT_FILE).is_file() else source / MODEL_FOLDER
    with new_folder(out, private=False) as folder:
        write_weights(model / WEIGHTS_FILE, folder / WEIGHTS_FILE, made)
        write_json(folder / DOCUMENT_FILE, portable(read_json(model / DOCUMENT_FILE), made))
        for name in (CLAIM_FILE, CARD_FILE):
            shutil.copyfile(model / name, folder / name)
    return made


def portable(document: Mapping[str, Any], made: ModelClaim) -> dict[str, Any]:
    """A model's document as it leaves."""
    meta = {name: document["meta"][name] for name in PORTABLE_META if name in document["meta"]}
    return {**document, "meta": meta, CLAIM_KEY: made.model_dump(mode="json")}


def write_weights(source: Path, target: Path, made: ModelClaim) -> None:
    """Copies weights, with the claim in the header of the copy."""
    from safetensors.torch import load_file, save_file

    save_file(load_file(source), target, metadata={"format": "pt", CLAIM_KEY: json.dumps(made.model_dump(mode="json"), sort_keys=True)})
