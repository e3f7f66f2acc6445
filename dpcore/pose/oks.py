"""OKS-AP as COCO counts it, by faster-coco-eval: AP over the thresholds 0.50 to 0.95 of object keypoint similarity.

It is computed in px of the images, because people of one image compete for each other's labels. Each person is one detection, whose
score is the mean confidence of its joints. People without a labelled joint are neither hits nor misses, and of one image the twenty
surest detections count, as in COCO's evaluation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpcore.errors import BadInput

if TYPE_CHECKING:
    from dpcore.pose.metrics import Scored, Truth

_NOWHERE_PX = -1e6
"""Where a prediction that is no number is taken to be: a miss."""
_CATEGORY = 1


def oks_ap(scored: Scored) -> float:
    """AP over OKS 0.50:0.05:0.95, all areas, as a fraction.

    Raises:
        BadInput: the labels give no OKS, or the evaluator is not installed.
    """
    reason = why_no_oks(scored.truth)
    if reason is not None:
        raise BadInput(f"there is no OKS-AP: {reason}")
    from faster_coco_eval import COCO, COCOeval_faster

    truth, people = coco_documents(scored)
    labels = COCO(truth)
    evaluation = COCOeval_faster(
        labels, labels.loadRes(people), iouType="keypoints", print_function=lambda *said: None, kpt_oks_sigmas=scored.truth.skeleton.sigmas
    )
    everything = evaluation.params.areaRngLbl.index("all")
    evaluation.params.areaRng = [evaluation.params.areaRng[everything]]
    evaluation.params.areaRngLbl = ["all"]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])
    counted = precision[precision > -1]
    return float(counted.mean()) if counted.size else float("nan")


def coco_documents(scored: Scored) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The labels as a COCO document, and the predictions as COCO results, both in px of the images."""
    truth = scored.truth
    _, images = np.unique(truth.image_ids, return_inverse=True)
    labelled, found = _in_image(truth, truth.keypoints), _in_image(truth, scored.predictions)
    annotations, people = [], []
    for row, image in enumerate(images):
        visible = truth.visible[row]
        common = {"image_id": int(image) + 1, "category_id": _CATEGORY}
        given = np.where(visible[:, None], labelled[row], 0.0)
        annotations.append(
            {
                **common,
                "id": row + 1,
                "iscrowd": 0,
                "area": float(truth.areas_px2[row]),
                "bbox": [*given.min(axis=0).tolist(), *np.ptp(given, axis=0).tolist()],
                "num_keypoints": int(visible.sum()),
                "keypoints": np.column_stack([given, np.where(visible, 2.0, 0.0)]).ravel().tolist(),
            }
        )
        flags = np.ones(len(visible))
        score = float(scored.confidence[row].mean())
        people.append({**common, "keypoints": np.column_stack([found[row], flags]).ravel().tolist(), "score": score})
    document = {
        "images": [{"id": int(image) + 1} for image in np.unique(images)],
        "categories": [{"id": _CATEGORY, "name": "person", "keypoints": list(truth.skeleton.joints)}],
        "annotations": annotations,
    }
    return document, people


def why_no_oks(truth: Truth) -> str | None:
    """Why no OKS-AP can be computed."""
    if truth.skeleton.sigmas is None:
        return f"OKS needs a sigma for each joint, and the skeleton {truth.skeleton.name} has none; give another metric such as pck_bbox_20"
    if np.isnan(truth.places).any():
        return "OKS-AP needs to know where each crop was cut; import the data again with this version, or give another metric"
    unknown = int((~(np.isfinite(truth.areas_px2) & (truth.areas_px2 > 0))).sum())
    if unknown:
        return f"OKS divides by a person's area, and {unknown} of {len(truth.areas_px2)} people have none; give another metric"
    if not truth.visible.any():
        return "no joint is labelled; give other data"
    try:
        import faster_coco_eval  # noqa: F401
    except ImportError:
        return "OKS-AP needs the package faster-coco-eval; install it with `pip install faster-coco-eval`"
    return None


def _in_image(truth: Truth, points: NDArray[np.floating]) -> NDArray[np.float64]:
    found = truth.in_image(points)
    return np.where(np.isfinite(found), found, _NOWHERE_PX)
