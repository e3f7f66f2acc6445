"""The labels of a dataset as metrics take them."""

from __future__ import annotations

import numpy as np

from dpcore.data.shards import ShardSet
from dpcore.pose.metrics import Truth


def truth_of(dataset: ShardSet) -> Truth:
    """What is known of a dataset's people. Nothing of the pictures is read."""
    boxes, places = dataset.person_boxes_px, dataset.places
    sides = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) * places[:, 2]
    return Truth(
        skeleton=dataset.skeleton,
        keypoints=dataset.keypoints,
        visible=dataset.visible,
        head_size_px=dataset.head_size_px,
        box_side_px=sides,
        areas_px2=dataset.areas_px2,
        image_ids=dataset.image_ids,
        places=places,
        middle_px=(dataset.manifest.width_px / 2, dataset.manifest.height_px / 2),
    )
