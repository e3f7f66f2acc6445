"""Drawn people with COCO's joints, boxes and areas, and no head sizes: what a file in COCO's form gives, without a file."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from dpcore.data.manifest import DatasetHeader, DatasetRole, Record
from dpcore.data.shards import ShardSet, open_shards, write_shards
from dpcore.data.synthetic import SIZE_PX, draw_record
from dpcore.pose.skeleton import COCO_17, MPII_16, Skeleton, mapped

NOT_DRAWN = 0.53
"""Share of a box that its person covers, as in COCO's segmentations."""


def coco_people(*, seed: int, count: int, domain: str = "private") -> Iterator[Record]:
    """People of the generator; the nose is taken between neck and head top, eyes and ears are not labelled."""
    for index in range(count):
        person = draw_record(domain, seed=seed, index=index)
        keypoints, visible = mapped(person.keypoints, person.visible, source=MPII_16, target=COCO_17)
        ends = [MPII_16.index["upper_neck"], MPII_16.index["head_top"]]
        keypoints[0], visible[0] = person.keypoints[ends].mean(axis=0), person.visible[ends].all()
        left, top, right, bottom = person.person_box_px or (0.0, 0.0, 1.0, 1.0)
        area = NOT_DRAWN * (right - left) * (bottom - top)
        yield replace(person, keypoints=keypoints, visible=visible, head_size_px=float("nan"), area_px2=area)


def write_people(
    folder: Path, *, seed: int, count: int, role: DatasetRole, domain: str = "private", skeleton: Skeleton = COCO_17
) -> ShardSet:
    """A dataset of them."""
    size = {"height_px": SIZE_PX, "width_px": SIZE_PX}
    header = DatasetHeader(name=folder.name, role=role, protected=False, origin="drawn", skeleton=skeleton, **size)
    write_shards(folder, coco_people(seed=seed, count=count, domain=domain), header=header)
    return open_shards(folder)


def hands(*, seed: int, count: int, skeleton: Skeleton) -> Iterator[Record]:
    """Bright dots on dark crops, one for each joint, spread from a corner: what a hand of 21 joints gives a network to learn."""
    for index in range(count):
        generator = np.random.default_rng([seed, index])
        keypoints = generator.uniform(6, SIZE_PX - 7, (skeleton.count, 2))
        image = np.full((SIZE_PX, SIZE_PX, 3), 20, dtype=np.uint8)
        for joint, (x, y) in enumerate(np.rint(keypoints).astype(int)):
            image[y - 1 : y + 2, x - 1 : x + 2] = (40 + 10 * joint, 255 - 10 * joint, 128)
        yield Record(
            image=image,
            keypoints=keypoints,
            visible=np.ones(skeleton.count, dtype=bool),
            head_size_px=float("nan"),
            person_id=f"{seed}-{index}",
            image_id=f"{seed}-{index}",
            video_id="",
            source_id=f"hand {seed}-{index}",
        )
