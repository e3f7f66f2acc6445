"""Generates the embedded data: synthetic people in two domains. With them a machine without any data can run a whole sweep.

The *public* domain is a bright studio: plain cloth, soft backgrounds, mostly upright people who face the camera. The *private* domain
is a stand-in for protected data: striped and checked cloth, hard coloured side light, noise, limb-like clutter, and people who
bend, kick and lie. A model of the public domain transfers in part. It lacks the poses and textures of the private domain. A blurred
or pixelated view loses the fine texture.

The domains also differ in their labels, as datasets do: the public one marks the centres of joints, the private one where a
motion-capture suit has its markers (`dpcore.data.labelling`). Public data say nothing of that, however they look. So with `labels: private`
it can be learned from private labels alone.

The settings below were fixed before anything was trained on them and are part of `GENERATOR_VERSION`. Version 2 gave the private domain
its labels. People and pictures are those of version 1.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dpcore.config import did_you_mean, digest_of
from dpcore.data.crops import CropBox
from dpcore.data.labelling import JOINT_CENTRES, SURFACE_MARKERS, LabelConvention, labels_of
from dpcore.data.manifest import Crops, DatasetHeader, DatasetRole, Manifest, Record
from dpcore.data.people import PoseLaw, draw_person
from dpcore.data.rendering import Look, render_person
from dpcore.data.shards import write_shards
from dpcore.errors import BadInput

GENERATOR_VERSION: Final = 2
PEOPLE_VERSION: Final = 1
"""The first word of each person's random stream: what a version of the generator leaves alone stays bit for bit."""
CROPS: Final[Crops] = "whole_image"
"""A synthetic picture is drawn whole, and nothing is cut from it. Other annotations of the same scene would change no pixel. But the camera
aims at the person like a photographer: at the joints' box, within a twelfth of its size and a fortieth of the picture. So every
view shows roughly where the person stands."""
SIZE_PX: Final = 64

LEAST_SHARE: Final = 200
"""People for whom another process is worth its start of half a second."""
DRAWN: Final = ("image", "keypoints", "visible", "head_size_px", "hull")
"""What travels of a record from the process that drew it."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A distribution of poses, a look and how joints are labelled. `stream` gives two domains with the same seed different people."""

    pose: PoseLaw
    look: Look
    labels: LabelConvention
    stream: int


DOMAINS: Final[dict[str, Domain]] = {
    "public": Domain(
        stream=1,
        pose=PoseLaw(
            yaw_deg=38,
            from_behind_prob=0.12,
            tilt_deg=7,
            lean_deg=9,
            camera_pitch_deg=7,
            thigh_raise_mean_deg=10,
            thigh_raise_deg=20,
            thigh_spread_deg=7,
            knee_deg=22,
            raised_arm_prob=0.4,
            elbow_max_deg=115,
            lying_prob=0.0,
        ),
        look=Look(
            patterned_prob=0.2,
            pattern_contrast=0.35,
            pattern_period_px=(5.0, 9.0),
            cloth_saturation=0.8,
            bare_limb_prob=0.5,
            ambient=0.6,
            light_side=0.2,
            cast=(1.0, 1.0, 1.0),
            exposure=(0.9, 1.1),
            background_value=(120.0, 215.0),
            background_cells=3,
            background_contrast=12.0,
            clutter=(0, 3),
            limb_like_clutter=False,
            occluder_prob=0.1,
            noise_stddev=3.0,
        ),
        labels=JOINT_CENTRES,
    ),
    "private": Domain(
        stream=2,
        pose=PoseLaw(
            yaw_deg=45,
            from_behind_prob=0.12,
            tilt_deg=15,
            lean_deg=16,
            camera_pitch_deg=12,
            thigh_raise_mean_deg=25,
            thigh_raise_deg=32,
            thigh_spread_deg=14,
            knee_deg=42,
            raised_arm_prob=0.65,
            elbow_max_deg=140,
            lying_prob=0.05,
        ),
        look=Look(
            patterned_prob=0.8,
            pattern_contrast=0.9,
            pattern_period_px=(3.0, 6.0),
            cloth_saturation=0.6,
            bare_limb_prob=0.35,
            ambient=0.4,
            light_side=1.0,
            cast=(1.05, 0.92, 0.78),
            exposure=(0.6, 1.0),
            background_value=(50.0, 150.0),
            background_cells=9,
            background_contrast=24.0,
            clutter=(4, 10),
            limb_like_clutter=True,
            occluder_prob=0.2,
            noise_stddev=7.0,
        ),
        labels=SURFACE_MARKERS,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A dataset that every machine can generate."""

    domain: str
    count: int
    seed: int
    role: DatasetRole


EMBEDDED: Final[dict[str, Embedded]] = {
    "synthetic/public": Embedded(domain="public", count=2000, seed=1, role="PUBLIC"),
    "synthetic/private": Embedded(domain="private", count=4000, seed=2, role="PRIVATE"),
    "synthetic/proxy": Embedded(domain="public", count=2000, seed=4, role="PUBLIC"),
    "synthetic/validation": Embedded(domain="private", count=500, seed=3, role="PUBLIC"),
}
"""`validation` comes from the domain of the private stand-in, with other people, and is declared PUBLIC. `proxy` looks like `public`, with
other people. It replaces the private part in a rehearsal."""


def draw_record(domain: str, *, seed: int, index: int) -> Record:
    """The `index`-th person of a seed. It depends only on the three arguments.

    Raises:
        BadInput: no such domain.
    """
    if domain not in DOMAINS:
        raise BadInput(f"no synthetic domain {domain!r}{did_you_mean(domain, list(DOMAINS))}")
    settings = DOMAINS[domain]
    generator = np.random.default_rng([PEOPLE_VERSION, settings.stream, seed, index])
    person = draw_person(settings.pose, generator, size_px=SIZE_PX)
    labels_px = labels_of(person, settings.labels)
    image, hidden = render_person(person, settings.look, generator, size_px=SIZE_PX, labels_px=labels_px)
    keypoints = labels_px.astype(np.float32)
    inside = ((keypoints >= -0.5) & (keypoints <= SIZE_PX - 0.5)).all(axis=-1)
    drawn = (image, keypoints, inside & ~hidden, np.float64(person.head_size_px), np.array(_hull(person.joints[:, :2])))
    return _record(domain, seed, index, *drawn)


def _record(
    domain: str, seed: int, index: int, image: NDArray[np.uint8], keypoints: NDArray[np.float32], visible: NDArray[np.bool_], *rest: Any
) -> Record:
    """A record from what is drawn of it, in the order of `DRAWN`; everything else follows from domain, seed and index."""
    head_size_px, hull = rest
    left, top, right, bottom = hull.tolist()
    name = f"{domain}-{seed}-{index:06d}"
    return Record(
        image=image,
        keypoints=keypoints,
        visible=visible,
        head_size_px=float(head_size_px),
        person_id=name,
        image_id=name,
        video_id="",
        source_id=f"synthetic {name}",
        box_px=(0.0, 0.0, SIZE_PX, SIZE_PX),
        crop=CropBox(centre=(SIZE_PX / 2, SIZE_PX / 2), box_px=SIZE_PX, height_px=SIZE_PX, width_px=SIZE_PX),
        person_box_px=(left, top, right, bottom),
    )


def _hull(points: NDArray[np.float64]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(edge) for edge in (*points.min(axis=0), *points.max(axis=0)))
    return left, top, right, bottom


def synth(folder: Path, domain: str, *, count: int, seed: int, role: DatasetRole, name: str | None = None) -> Manifest:
    """Writes a synthetic dataset of `count` people. It is never protected, because it shows no real people.

    Raises:
        BadInput: no such domain, or `count` < 1.
        Refused: the folder exists.
    """
    if count < 1:
        raise BadInput(f"a synthetic dataset needs at least 1 person, given {count}")
    if domain not in DOMAINS:
        raise BadInput(f"no synthetic domain {domain!r}{did_you_mean(domain, list(DOMAINS))}")
    header = DatasetHeader(
        name=name or folder.name,
        role=role,
        protected=False,
        height_px=SIZE_PX,
        width_px=SIZE_PX,
        origin=f"synthetic {domain}, generator {GENERATOR_VERSION} ({settings_digest(domain)}), seed {seed}, {count} people",
        crops=CROPS,
    )
    return write_shards(folder, _records(domain, count, seed), header=header)


def settings_digest(domain: str) -> str:
    """16 hex digits over the domain's settings: the cache key of what it generates."""
    return digest_of({"version": GENERATOR_VERSION, "crops": CROPS, "domain": asdict(DOMAINS[domain])})


def _records(domain: str, count: int, seed: int) -> Iterator[Record]:
    """People 0 to `count`, in order: the first share is drawn here, the others meanwhile by a process each.

    Those are commands, not workers of `multiprocessing`, which would import the main module of whoever uses dpsweep once more.
    """
    cores = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    first, *others = np.array_split(np.arange(count), max(1, min(cores, count // LEAST_SHARE)))
    with tempfile.TemporaryDirectory(prefix="dpsweep-") as folder, contextlib.ExitStack() as running:
        files = [Path(folder) / f"{share[0]}.npz" for share in others]
        helpers = [running.enter_context(_helper(domain, seed, share, file)) for share, file in zip(others, files, strict=True)]
        for index in first:
            yield draw_record(domain, seed=seed, index=int(index))
        for helper, share, file in zip(helpers, others, files, strict=True):
            _, said = helper.communicate()
            if helper.returncode:
                raise RuntimeError(f"drawing people {share[0]} to {share[-1]} of {domain} failed: {said.strip()}")
            with np.load(file, allow_pickle=False) as drawn:
                columns = [drawn[name] for name in DRAWN]
            yield from (_record(domain, seed, int(index), *row) for index, *row in zip(share, *columns, strict=True))


@contextlib.contextmanager
def _helper(domain: str, seed: int, share: NDArray[np.int64], file: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that draws a share into `file`, ended with the block."""
    command = [sys.executable, "-m", "dpcore.data.synthetic", domain, str(seed), str(share[0]), str(share[-1] + 1), str(file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as helper:
        try:
            yield helper
        finally:
            helper.kill()


def main(arguments: list[str]) -> None:
    """`python -m dpcore.data.synthetic DOMAIN SEED START STOP FILE`: draws people START to STOP of a seed into an .npz file."""
    domain, seed, start, stop, file = arguments
    records = [draw_record(domain, seed=int(seed), index=index) for index in range(int(start), int(stop))]
    columns: dict[str, list[Any]] = {
        "image": [record.image for record in records],
        "keypoints": [record.keypoints for record in records],
        "visible": [record.visible for record in records],
        "head_size_px": [np.float64(record.head_size_px) for record in records],
        "hull": [np.array(record.person_box_px) for record in records],
    }
    np.savez(Path(file), allow_pickle=False, **{name: np.stack(columns[name]) for name in DRAWN})


if __name__ == "__main__":
    main(sys.argv[1:])
