"""A trained model, taken to one's own pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.records.spec import DEFAULT_STORAGE

if TYPE_CHECKING:
    from sweeps.models.keypoints.people import PredictedPeople

PEOPLE_AT_ONCE = 32


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
