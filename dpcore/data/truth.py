"""The labels of a dataset as metrics take them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpcore.data.shards import ShardSet
from dpcore.pose.metrics import Truth


def truth_of(dataset: ShardSet, rows: NDArray[np.int64] | None = None) -> Truth:
    """What is known of a dataset's people, or of those in `rows` alone. Nothing of the pictures is read."""
    some = slice(None) if rows is None else rows
    boxes, places = dataset.person_boxes_px[some], dataset.places[some]
    sides = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) * places[:, 2]
    return Truth(
        skeleton=dataset.skeleton,
        keypoints=dataset.keypoints[some],
        visible=dataset.visible[some],
        head_size_px=dataset.head_size_px[some],
        box_side_px=sides,
        areas_px2=dataset.areas_px2[some],
        image_ids=dataset.image_ids[some],
        places=places,
        middle_px=(dataset.manifest.width_px / 2, dataset.manifest.height_px / 2),
    )
