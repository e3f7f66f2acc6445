"""OKS-AP is the number of the evaluator itself in px of the images, on drawn people and on COCO's."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from dpcore.data.crops import CropBox
from dpcore.errors import BadInput
from dpcore.pose.metrics import METRICS, Scored, Truth, score_of
from dpcore.pose.skeleton import COCO_17, CROWDPOSE_14, HAND_21, Skeleton

SIZE = {"height_px": 96, "width_px": 72}


def people_of(skeleton: Skeleton, count: int = 40) -> dict[str, Any]:
    """A COCO document of people in images of 640 × 480 px, two or three to an image, overlapping."""
    generator = np.random.default_rng(23)
    annotations = []
    for n in range(count):
        corner, extent = generator.uniform(0, 300, 2), generator.uniform(60, 180, 2)
        points = corner + generator.uniform(0, 1, (skeleton.count, 2)) * extent
        flags = np.where(generator.random(skeleton.count) > 0.25, generator.integers(1, 3, skeleton.count), 0)
        annotations.append(
            {
                **{"id": n + 1, "image_id": n // 3 + 1, "category_id": 1, "iscrowd": 0, "bbox": [*corner, *extent]},
                **{"area": float(0.53 * extent.prod()), "num_keypoints": int((flags > 0).sum())},
                "keypoints": np.column_stack([points * (flags > 0)[:, None], flags]).ravel().tolist(),
            }
        )
    images = [{"id": n + 1, "width": 640, "height": 480} for n in range(count // 3 + 1)]
    return {"images": images, "categories": [{"id": 1, "name": "person"}], "annotations": annotations}


def scored_of(document: dict[str, Any], skeleton: Skeleton, *, noise: float, seed: int) -> tuple[Scored, list[dict[str, Any]]]:
    """The people as crops with noisy predictions in px of the crop, and the same predictions as COCO results in px of the image."""
    generator = np.random.default_rng(seed)
    rows, results = [], []
    for person in document["annotations"]:
        left, top, width, height = person["bbox"]
        centre = (left + width / 2 - 0.5, top + height / 2 - 0.5)
        crop = CropBox(centre=centre, box_px=1.25 * max(width, height), **SIZE)
        given = np.array(person["keypoints"], dtype=np.float64).reshape(-1, 3)
        found = given[:, :2] + generator.normal(0, noise * np.sqrt(person["area"]), (skeleton.count, 2))
        confidence = generator.random(skeleton.count)
        rows.append((crop, crop.to_crop(given[:, :2]), given[:, 2] > 0, person, crop.to_crop(found), confidence))
        kept = np.column_stack([found, np.ones(skeleton.count)]).ravel().tolist()
        results.append({"image_id": person["image_id"], "category_id": 1, "keypoints": kept, "score": float(confidence.mean())})
    crops, points, visible, people, found_in_crops, sure = zip(*rows, strict=True)
    truth = Truth(
        skeleton=skeleton,
        keypoints=np.stack(points).astype(np.float32),  # as a dataset stores them
        visible=np.stack(visible),
        head_size_px=np.full(len(rows), np.nan),
        box_side_px=np.full(len(rows), np.nan),
        areas_px2=np.array([person["area"] for person in people]),
        image_ids=np.array([str(person["image_id"]) for person in people]),
        places=np.array([(*crop.centre, crop.zoom) for crop in crops]),
        middle_px=(SIZE["width_px"] / 2, SIZE["height_px"] / 2),
    )
    return Scored(np.stack(found_in_crops).astype(np.float32), truth, np.stack(sure)), results


def evaluators_own(document: dict[str, Any], results: list[dict[str, Any]], skeleton: Skeleton) -> float:
    """AP as the evaluator summarises it, from the file's own labels."""
    labels = COCO(json.loads(json.dumps(document)))
    found = labels.loadRes(results)
    evaluation = COCOeval_faster(labels, found, iouType="keypoints", kpt_oks_sigmas=skeleton.sigmas, print_function=lambda *said: None)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.09, 0.3])
@pytest.mark.parametrize("skeleton", [COCO_17, CROWDPOSE_14, HAND_21], ids=lambda skeleton: skeleton.name)
def test_the_score_is_the_evaluators_own(skeleton: Skeleton, noise: float) -> None:
    document = people_of(skeleton)
    scored, results = scored_of(document, skeleton, noise=noise, seed=3)
    own = evaluators_own(document, results, skeleton)
    assert score_of(METRICS.get("oks_ap"), scored) == pytest.approx(own, abs=1e-12)
    assert (own == 1.0) == (noise == 0.0)


@pytest.fixture
def coco_mini(shared_data: Path) -> dict[str, Any]:
    document = json.loads((shared_data / "coco_mini" / "person_keypoints.json").read_text())
    kept = [one for one in document["annotations"] if not one["iscrowd"] and one["num_keypoints"] > 0]
    return {**document, "annotations": kept}


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
def test_the_score_is_the_evaluators_own_on_coco(coco_mini: dict[str, Any], noise: float) -> None:
    scored, results = scored_of(coco_mini, COCO_17, noise=noise, seed=7)
    own = evaluators_own(coco_mini, results, COCO_17)
    assert 0.05 < own < 0.99
    assert score_of(METRICS.get("oks_ap"), scored) == pytest.approx(own, abs=1e-12)


def test_a_prediction_that_is_no_number_is_a_miss() -> None:
    document = people_of(COCO_17)
    scored, _ = scored_of(document, COCO_17, noise=0.0, seed=3)
    lost = scored.predictions.copy()
    lost[::2] = np.nan
    assert 0 < score_of(METRICS.get("oks_ap"), Scored(lost, scored.truth, scored.confidence)) < 0.6


def test_a_missing_evaluator_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    scored, _ = scored_of(people_of(COCO_17), COCO_17, noise=0.05, seed=3)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(BadInput, match="pip install faster-coco-eval"):
        score_of(METRICS.get("oks_ap"), scored)
