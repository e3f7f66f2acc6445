"""The evidence of an attacker: the public views of some people, and pictures computed from the stored bytes without learning.

An attacker with the views under several splits holds the pictures of all of them. Where one view shows a pixel unchanged, the
attacker copies it into all pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpcore.config import AttackSettings, Places, SplitConfig
from dpcore.data.shards import ShardSet
from dpcore.data.splitting import decode_view, deconvolve
from dpcore.data.views import StoredViews, build_views, hidden_of_rows
from dpcore.disclosure.quality import Images, Pixels, psnr_db
from dpcore.errors import BadInput, Refused
from dpcore.privacy.randomness import Indices, PublicStreams

NOISE_TO_SIGNAL = (1e-7, 1e-6, 5e-6, 2e-5, 1e-4)
"""Wiener ratios from which the attacker chooses by PSNR on its own people. The published sharpening uses 5e-6."""
ROWS_TO_CHOOSE = 128
ROWS_AT_ONCE = 256
TRAINING_BYTES = 48 * 2**20
"""Size limit of each stack of training pictures. 2,000 crops of 64 px take 24 MB. 440 crops of 192 px reach the limit."""


@dataclass(frozen=True, kw_only=True)
class People:
    """Rows of PUBLIC datasets of one crop size.

    Raises:
        Refused: a dataset is not PUBLIC. Our attackers never learn from private pixels.
    """

    parts: tuple[tuple[ShardSet, Indices], ...]

    def __post_init__(self) -> None:
        for dataset, _ in self.parts:
            if dataset.manifest.role != "PUBLIC":
                raise Refused(
                    f"{dataset.manifest.name} is {dataset.manifest.role}: disclosure is measured only on PUBLIC data; give another dataset"
                )

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.parts)

    def images(self) -> Images:
        """The originals (N, H, W, 3)."""
        return np.concatenate([dataset.images(rows) for dataset, rows in self.parts])

    def draw(self, generator: np.random.Generator, count: int) -> Indices:
        """Draws `count` of the N numbers, each dataset with equal probability. So a small dataset that resembles the victims counts."""
        ends = np.cumsum([len(rows) for _, rows in self.parts])
        sizes = np.array([len(rows) for _, rows in self.parts])
        filled = np.flatnonzero(sizes)
        part = filled[generator.integers(0, len(filled), count)]
        rows: Indices = (ends - sizes)[part] + (generator.random(count) * sizes[part]).astype(np.int64)
        return rows


def choose_people(public: ShardSet, validation: ShardSet, settings: AttackSettings, streams: PublicStreams) -> tuple[People, People]:
    """Divides people into training people for the attackers and test people. No photograph is in both.

    The test people are validation people, at most half of them. They resemble the private people, and the pose model has not
    seen them. Attackers learn from the other half and from the public set. If the validation data are not PUBLIC, both come from
    the public set.

    Raises:
        BadInput: fewer than two people to test on.
    """
    source = validation if validation.manifest.role == "PUBLIC" else public
    count = min(settings.test_images, len(source) // 2)
    if count == 0:
        raise BadInput(f"{source.manifest.name} has {len(source)} people: give at least 2 to measure what a split discloses")
    shuffled = streams.generator("disclosure.people").permutation(len(source)).astype(np.int64)
    tested, rest = np.sort(shuffled[:count]), shuffled[count:]
    height, width = source.manifest.height_px, source.manifest.width_px
    left = max(1, TRAINING_BYTES // (height * width * 3))
    parts: list[tuple[ShardSet, Indices]] = []
    for dataset, rows in [(source, rest)] + ([] if source is public else [(public, np.arange(len(public)))]):
        seen = np.isin(dataset.image_ids[rows], source.image_ids[tested]) | np.isin(
            dataset.content_hashes[rows], source.content_hashes[tested]
        )
        parts.append((dataset, rows[~seen][:left]))
        left -= len(parts[-1][1])
    return People(parts=tuple(parts)), People(parts=((source, tested),))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Pictures of N people without their originals.

    Attributes:
        names: names of the pictures. Published views come first.
        pictures: one stack (N, H, W, 3) per name.
        hidden: (N, H, W): pixels that no view shows unchanged.
    """

    names: tuple[str, ...]
    pictures: tuple[Images, ...]
    hidden: Pixels

    def best_for(self, originals: Images) -> int:
        """The index of the picture with the highest PSNR."""
        scores = [psnr_db(picture, originals) for picture in self.pictures]
        return max(range(len(scores)), key=lambda index: np.inf if scores[index] is None else float(scores[index] or 0.0))


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """The attacks without learning on one split.

    Attributes:
        split: the split under attack.
        noise_to_signal: ratio of the deconvolution. None if the split is not a blur of the whole image.
    """

    split: SplitConfig
    noise_to_signal: float | None

    @classmethod
    def fitted(cls, split: SplitConfig, people: People, places: Places) -> Arithmetic:
        """Chooses the deconvolution's ratio on the attacker's own people."""
        if split.transform != "gaussian_blur" or split.region != "all":
            return cls(split=split, noise_to_signal=None)
        dataset, rows = people.parts[0]
        rows = rows[:ROWS_TO_CHOOSE]
        stored, originals = _stored(build_views(dataset, split, places), rows), dataset.images(rows)
        scores = [psnr_db(_deconvolved(stored, split, ratio, originals.shape[1:3]), originals) or np.inf for ratio in NOISE_TO_SIGNAL]
        return cls(split=split, noise_to_signal=NOISE_TO_SIGNAL[int(np.argmax(scores))])

    def pictures(self, views: StoredViews, rows: Indices, *, size_px: tuple[int, ...]) -> dict[str, Images]:
        """Pictures from the stored bytes: as published, and deconvolved (blur) or interpolated (cells)."""
        found = {"as published": views.images(rows)}
        if self.noise_to_signal is not None:
            found["deconvolved"] = _deconvolved(_stored(views, rows), self.split, self.noise_to_signal, size_px)
        elif self.split.transform == "pixelate" and self.split.region == "all":
            smooth = self.split.model_copy(update={"transform": "downsample", "factor": self.split.cell_px, "cell_px": None})
            found["interpolated"] = decode_view(_stored(views, rows), smooth, size_px=(size_px[0], size_px[1]))
        return found


def gather_evidence(people: People, attacks: Sequence[Arithmetic], places: Places) -> Evidence:
    """All pictures of `people` under the splits of `attacks`. Pixels that a view shows unchanged are copied into all of them."""
    stacks: dict[str, list[Images]] = {}
    hidden: list[Pixels] = []
    for dataset, rows in people.parts:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            pictures, masks = _chunk(dataset, rows[start : start + ROWS_AT_ONCE], attacks, places)
            for name, picture in pictures.items():
                stacks.setdefault(name, []).append(picture)
            hidden.append(masks)
    names = tuple(sorted(stacks, key=lambda name: not name.endswith("as published")))
    return Evidence(names=names, pictures=tuple(np.concatenate(stacks[name]) for name in names), hidden=np.concatenate(hidden))


def _chunk(dataset: ShardSet, rows: Indices, attacks: Sequence[Arithmetic], places: Places) -> tuple[dict[str, Images], Pixels]:
    size_px = (dataset.manifest.height_px, dataset.manifest.width_px)
    pictures: dict[str, Images] = {}
    hidden = np.ones((len(rows), *size_px), dtype=bool)
    shown: list[tuple[Pixels, Images]] = []
    for attack in attacks:
        views = build_views(dataset, attack.split, places)
        for name, picture in attack.pictures(views, rows, size_px=size_px).items():
            pictures[f"{attack.split.name} {name}"] = picture
        if attack.split.region != "all":
            masks = hidden_of_rows(dataset, rows, attack.split.region)
            shown.append((~masks, views.images(rows)))
            hidden &= masks
    for picture in pictures.values():
        for pixels, view in shown:
            picture[pixels] = view[pixels]
    return pictures, hidden


def _stored(views: StoredViews, rows: Indices) -> Images:
    return np.asarray(views.stored[rows])


def _deconvolved(stored: Images, split: SplitConfig, noise_to_signal: float, size_px: tuple[int, ...]) -> Images:
    return deconvolve(stored, split.sigma_px or 0.0, size_px=(size_px[0], size_px[1]), noise_to_signal=noise_to_signal)
