"""Writes the folder of a registered model: weights, claim, card, config, and what MLflow needs to use it as a Python function.

model.safetensors  model.json  claim.json  README.md  config.yaml        as an export has them
MLmodel            signature, and the module that loads the model (`sweeps.models.python_function`)
requirements.txt  conda.yaml  python_env.yaml  input_example.json  serving_input_example.json
"""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpcore.config.networks import backbone_traits
from dpcore.pose.skeleton import MPII_16, Skeleton
from sweeps.models.claims import CLAIM_FILE, load_claim
from sweeps.models.exporting import write_weights
from sweeps.models.model_card import CARD_FILE
from sweeps.tracking.allow_list import allowed_metrics

WEIGHTS, DOCUMENT = "model.safetensors", "model.json"
DURATIONS = ("seconds",)
LOADER = "sweeps.models.python_function"
PINNED = ("dpsweep", "mlflow", "torch", "numpy", "pillow", "pydantic", "safetensors", "scipy", "pyarrow")
"""What a prediction imports."""
EXAMPLE, SERVED_EXAMPLE, REQUIREMENTS = "input_example.json", "serving_input_example.json", "requirements.txt"
CONDA, PYTHON_ENV = "conda.yaml", "python_env.yaml"


def write_model_folder(folder: Path, event: dict[str, Any], *, run_id: str) -> None:
    """Fills `folder` with the content of a model version.

    Args:
        folder: Empty folder.
        event: The `model` event: `model` (the trained model's folder: weights, model.json, claim), `config` (YAML text),
            `height_px`, `width_px`, `tags`, `protected` (then durations and metrics outside the allow-list are left out).
        run_id: The run that trained it.

    Raises:
        FileNotFoundError: the weights are gone. BadInput, Corrupt: its claim was cut off or altered.
        Refused: it was trained on protected people without privacy.
    """
    source = Path(event["model"])
    if not (source / WEIGHTS).is_file():
        raise FileNotFoundError(f"{source / WEIGHTS} is gone")
    made = load_claim(source)
    made.check_may_leave(str(source))
    for name in (DOCUMENT, CLAIM_FILE, CARD_FILE):
        shutil.copyfile(source / name, folder / name)
    write_weights(source / WEIGHTS, folder / WEIGHTS, made)
    if event["protected"]:
        _withhold(folder / DOCUMENT)
    (folder / "config.yaml").write_text(event["config"], encoding="utf-8")
    _write_environment(folder)
    _write_example(folder)
    _write_mlmodel(folder, event, run_id)


def _write_mlmodel(folder: Path, event: dict[str, Any], run_id: str) -> None:
    """The description. The model itself checks its inputs: a schema of MLflow's admits either paths or arrays, and these of one size."""
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from mlflow.types.schema import AnyType

    pictures = ColSpec(AnyType(), name="image")  # type: ignore[no-untyped-call]
    skeleton = _skeleton_of(folder / DOCUMENT)
    keypoints = TensorSpec(np.dtype("float32"), (-1, skeleton.count, 3), "keypoints_px_score")
    described = Model(
        artifact_path="model",
        run_id=run_id,
        signature=ModelSignature(inputs=Schema([pictures]), outputs=Schema([keypoints])),
        metadata={**event["tags"], "joints": list(skeleton.joints), "crop_px": [event["height_px"], event["width_px"]]},
        saved_input_example_info={"artifact_path": EXAMPLE, "serving_input_path": SERVED_EXAMPLE, "type": "json_object"},
    )
    described.add_flavor("dpsweep", weights=WEIGHTS, document=DOCUMENT)
    described.add_flavor(
        "python_function",
        loader_module=LOADER,
        python_version=platform.python_version(),
        env={"conda": CONDA, "virtualenv": PYTHON_ENV},
        config={"device": "cpu"},
    )
    Model.from_dict({**described.to_dict(), "is_signature_from_type_hint": True}).save(folder / "MLmodel")


def _write_example(folder: Path) -> None:
    """One synthetic person, 48 × 48 px: nobody's picture."""
    import numpy as np
    from PIL import Image

    from dpcore.data.synthetic import draw_record

    picture = Image.fromarray(draw_record("public", seed=0, index=0).image).resize((48, 48))
    pictures = [np.asarray(picture).tolist()]
    (folder / EXAMPLE).write_text(json.dumps(pictures), encoding="utf-8")
    (folder / SERVED_EXAMPLE).write_text(json.dumps({"inputs": pictures}), encoding="utf-8")


def _write_environment(folder: Path) -> None:
    """The versions that made the model, for tools that build an environment. The local part of a version (`+cpu`) is on no index."""
    backbone = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))["config"]["model"]["backbone"]
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in (*PINNED, *_installed(backbone_traits(backbone).packages))]
    python = platform.python_version()
    (folder / REQUIREMENTS).write_text("\n".join(pins) + "\n", encoding="utf-8")
    environment = {"python": python, "build_dependencies": ["pip"], "dependencies": [f"-r {REQUIREMENTS}"]}
    (folder / PYTHON_ENV).write_text(json.dumps(environment, indent=1) + "\n", encoding="utf-8")
    conda = {"name": "dpsweep-model", "channels": ["conda-forge"], "dependencies": [f"python={python}", "pip", {"pip": pins}]}
    (folder / CONDA).write_text(json.dumps(conda, indent=1) + "\n", encoding="utf-8")


def _skeleton_of(path: Path) -> Skeleton:
    """The joints that a model predicts; a document of an earlier version means mpii_16."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return Skeleton.model_validate(document["skeleton"]) if "skeleton" in document else MPII_16


def _installed(names: Iterable[str]) -> list[str]:
    """Those that are here: timm's operators of torchvision can be declared without it."""
    return [name for name in names if importlib.util.find_spec(name) is not None]


def _withhold(path: Path) -> None:
    """Removes from a model's document what must not leave on protected data: the training time and sealed metrics."""
    document = json.loads(path.read_text(encoding="utf-8"))
    meta = {name: value for name, value in document["meta"].items() if name not in DURATIONS}
    if "metrics" in meta:
        meta["metrics"] = allowed_metrics(meta["metrics"], protected=True)
    path.write_text(json.dumps({**document, "meta": meta}, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")
