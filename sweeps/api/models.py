"""A trained model on its way out: keypoints on one's own pictures, a folder that stands alone, ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.errors import BadInput
from sweeps.records.spec import DEFAULT_STORAGE

if TYPE_CHECKING:
    from sweeps.models.claims import ModelClaim
    from sweeps.models.keypoints.people import PredictedPeople
    from sweeps.models.onnx_export import OnnxCheck

PEOPLE_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What left, and with which claim.

    Attributes:
        made: claim, price and scores; they travel in everything that was written.
        folder: the new folder; None without one.
        onnx: the new ONNX file; None without one.
        check: how far its keypoints are from torch's.
    """

    made: ModelClaim
    folder: Path | None = None
    onnx: Path | None = None
    check: OnnxCheck | None = None


def predict(
    model: str | Path,
    pictures: str | Path | Sequence[str | Path],
    *,
    boxes: str | Path | None = None,
    out: str | Path | None = None,
    draw: str | Path | None = None,
    skip_broken: bool = False,
    batch: int = PEOPLE_AT_ONCE,
    box_scale: float | None = None,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
    storage: str | Path = DEFAULT_STORAGE,
    tracking_uri: str | None = None,
) -> PredictedPeople:
    """Reads keypoints off pictures, in px of the pictures as a viewer shows them.

    A prediction is a function of the released model and of the new picture alone, so it costs no privacy of the training data.

    Args:
        model: Folder of a model, a training, a finished trial or an export; in a bucket a trial's URI; in MLflow as for `claim`.
        pictures: Files, folders, patterns such as `photos/*.jpg`.
        boxes: File with people's boxes: COCO's form, a list of detections, or CSV with `image,x,y,w,h`. None: each whole picture is
            one person's crop.
        out: New file of the keypoints, `.json` (COCO's results) or `.csv`. None: they are in the result alone.
        draw: New folder of the pictures with skeletons on them.
        skip_broken: Leave out pictures that do not read, with a count, instead of refusing.
        batch: People that go through the network at once.
        box_scale: Margin around a box; None: that of the training.
        device: `cpu` or `cuda`.
        on_progress: Hears how many of how many pictures are done.
        storage, tracking_uri: As for `claim`.

    Raises:
        BadInput: No model or picture there, a picture does not read, or the boxes have another form. Nothing was written then.
        Refused: `out` or `draw` exists. Corrupt: The weights are not those that were written.
        Unavailable: Bucket, MLflow or device is not there.

    >>> predict("never_made", "photos")
    Traceback (most recent call last):
    dpcore.errors.BadInput: never_made: no such folder; give the folder of a model, a trial or a training, or models:/NAME@ALIAS
    """
    from sweeps.models.keypoints.run import PredictRequest, predict_pictures
    from sweeps.tracking.registry import model_at_hand

    request = PredictRequest(
        pictures=[pictures] if isinstance(pictures, str | Path) else list(pictures),
        boxes=None if boxes is None else Path(boxes),
        out=None if out is None else Path(out),
        draw=None if draw is None else Path(draw),
        skip_broken=skip_broken,
        at_once=batch,
        device=device,
        box_scale=box_scale,
        **({} if on_progress is None else {"on_progress": on_progress}),
    )
    with model_at_hand(str(model), storage=storage, tracking_uri=tracking_uri) as folder:
        return predict_pictures(folder, request)


def export(
    model: str | Path,
    *,
    out: str | Path | None = None,
    onnx: str | Path | None = None,
    storage: str | Path = DEFAULT_STORAGE,
    tracking_uri: str | None = None,
) -> Exported:
    """Writes a model as a folder that stands alone, as an ONNX file, or both. Claim, price and scores go along in each.

    Only weights, what the network is built again from, claim and model card leave. No data, metric or time of the training does.

    Args:
        model: As for `predict`.
        out: New folder: model.safetensors, model.json, claim.json, README.md.
        onnx: New file: crops (B, H, W, 3) uint8 in, keypoints (B, K, 2) px and scores (B, K) out. Its keypoints are held against torch's
            first. Needs the extra `onnx`.
        storage, tracking_uri: As for `claim`.

    Raises:
        BadInput: No model there, its claim was cut off, or neither `out` nor `onnx` was given. Corrupt: Claim or weights were altered.
        Refused: `out` or `onnx` exists, the model was trained on protected people without privacy, or ONNX gives other keypoints.
        Unavailable: Bucket or MLflow does not answer, or the extra `onnx` is not installed.

    >>> export("never_made", out="exported")
    Traceback (most recent call last):
    dpcore.errors.BadInput: never_made: no model there; give the folder of a model, a finished trial or a training
    """
    from sweeps.models.exporting import check_export, export_folder
    from sweeps.tracking.registry import model_at_hand

    folder, file = None if out is None else Path(out), None if onnx is None else Path(onnx)
    if folder is None and file is None:
        raise BadInput("nothing to write: give --out DIR or --onnx FILE, or both")
    with model_at_hand(str(model), storage=storage, tracking_uri=tracking_uri) as source:
        made = check_export(source, out=folder, onnx=file)
        check = None
        if file is not None:
            from sweeps.models.onnx_export import export_onnx

            check = export_onnx(source, file, made)
        if folder is not None:
            export_folder(source, folder)
    return Exported(made=made, folder=folder, onnx=file, check=check)
