"""A drawn person whose joints are painted, each in its own colour: a crop shows whether its labels point at the right pixels."""

import colorsys
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from dpcore.data.shards import ShardSet
from dpcore.pose.skeleton import COCO_17, MPII_16

SIZE = (240, 320)
"""Width and height of the picture, px."""

PLACES: dict[str, tuple[int, int]] = {
    "nose": (120, 60), "l_eye": (126, 54), "r_eye": (114, 54), "l_ear": (133, 58), "r_ear": (107, 58),
    "l_shoulder": (150, 100), "r_shoulder": (90, 100), "l_elbow": (166, 138), "r_elbow": (74, 138),
    "l_wrist": (174, 176), "r_wrist": (66, 176), "l_hip": (138, 184), "r_hip": (102, 184),
    "l_knee": (142, 234), "r_knee": (98, 234), "l_ankle": (144, 284), "r_ankle": (96, 284),
    "head_top": (120, 30), "upper_neck": (120, 84),
}  # fmt: skip
DERIVED = {"pelvis": (120, 184), "thorax": (120, 100)}


def colour(name: str) -> tuple[int, ...]:
    """A hue of its own for each painted joint."""
    return tuple(int(255 * part) for part in colorsys.hsv_to_rgb(list(PLACES).index(name) / 19, 1, 1))


def painted_person() -> Image.Image:
    """The picture, RGB."""
    picture = Image.new("RGB", SIZE, (40, 40, 40))
    draw = ImageDraw.Draw(picture)
    for name, (x, y) in PLACES.items():
        draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=colour(name))
    return picture


def hrnet_of_person(file: str, **changes: Any) -> dict[str, Any]:
    """An HRNet record of the person, 0-based."""
    joints = [list({**PLACES, **DERIVED}[name]) for name in MPII_16.joints]
    return {"image": file, "center": [120, 158], "scale": 1.4, "joints": joints, "joints_vis": [1] * 16, **changes}


def coco_of_person(*files: str, names: tuple[str, ...] = COCO_17.joints, **changes: Any) -> dict[str, Any]:
    """A COCO document with the person on each file, its keypoints in the order of `names`."""
    keypoints = [value for name in names for value in (*PLACES[name], 2)]
    person = {"category_id": 1, "iscrowd": 0, "bbox": [54, 20, 132, 276], "keypoints": keypoints}
    return {
        "images": [{"id": n, "file_name": file, "width": SIZE[0], "height": SIZE[1]} for n, file in enumerate(files, 1)],
        "categories": [{"id": 1, "name": "person", "keypoints": list(names)}],
        "annotations": [{"id": n, "image_id": n, **person, **changes} for n in range(1, len(files) + 1)],
    }


def misplaced(dataset: ShardSet, row: int = 0) -> list[str]:
    """The labelled, painted joints of a record whose pixel has another colour than theirs."""
    image = dataset.images(np.array([row]))[0].astype(int)
    wrong = []
    for index, name in enumerate(dataset.skeleton.joints):
        if name in PLACES and dataset.visible[row, index]:
            x, y = np.rint(dataset.keypoints[row, index]).astype(int)
            inside = 0 <= x < image.shape[1] and 0 <= y < image.shape[0]
            if not inside or np.abs(image[y, x] - colour(name)).max() >= 60:
                wrong.append(name)
    return wrong
