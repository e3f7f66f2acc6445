"""A trained model at work: crops or pictures in, keypoints out. It uses the evaluator's own forward pass, views and decoding.

Shapes: N people, K joints, H W pixels of the model's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dpcore.config import RuntimeFlags
from dpcore.data.crops import CropBox
from dpcore.data.framing import Turned
from dpcore.errors import BadInput
from dpcore.inference.reading import PoseReading
from dpcore.train.inputs import device_of, shown_in
from dpcore.train.predictions import predict
from dpcore.train.saved import SavedModel, load_model
from dpcore.train.sources import ImageInputs
from sweeps.models.keypoints.boxes import PersonBox


@dataclass(frozen=True, kw_only=True, eq=False)
class Keypoints:
    """Keypoints of N people.

    Attributes:
        points: (N, K, 2) float64 px, x right and y down, pixel centres at integers.
        scores: (N, K) float64 in 0 … 1: the mass of each prediction near its peak.
    """

    points: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, rows: slice) -> Keypoints:
        """Some of the people."""
        return Keypoints(points=self.points[rows], scores=self.scores[rows])


@dataclass(frozen=True)
class _Crops:
    """Crops in memory, as the evaluator reads them."""

    pixels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, H, W, 3) uint8."""
        return self.pixels[indices]


@dataclass(frozen=True, kw_only=True, eq=False)
class PoseEstimator:
    """A saved model that reads keypoints.

    Attributes:
        saved: network, config and stored result.
        device: where it computes.
        box_scale: margin around a person's box.
    """

    saved: SavedModel
    device: torch.device
    box_scale: float

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu", box_scale: float | None = None) -> PoseEstimator:
        """The model in a folder.

        Args:
            folder: of a model, or of the trial or training around it.
            device: cpu or cuda.
            box_scale: another margin than that of the training data.

        Raises:
            BadInput: no model is there. Corrupt: its weights are not those that were written. Unavailable: no such device.
        """
        place = device_of(RuntimeFlags.model_validate({"device": device}))
        saved = load_model(folder)
        saved.network.to(place)
        return cls(saved=saved, device=place, box_scale=saved.box_scale if box_scale is None else box_scale)

    @property
    def joints(self) -> tuple[str, ...]:
        """K names, in the order of the keypoints."""
        return self.saved.skeleton.joints

    @property
    def lines(self) -> tuple[tuple[int, int], ...]:
        """Pairs of joints to draw a line between."""
        return self.saved.skeleton.line_places

    @property
    def reading(self) -> PoseReading:
        """How keypoints are read: by the evaluation that the model was trained for."""
        return PoseReading.of(self.saved.config.model, self.saved.config.evaluation, self.saved.skeleton)

    @property
    def input_px(self) -> tuple[int, int]:
        """Height and width of a crop."""
        return self.saved.config.model.input_height_px, self.saved.config.model.input_width_px

    def of_crops(self, crops: NDArray[np.uint8]) -> Keypoints:
        """Keypoints of crops (N, H, W, 3) uint8 RGB, in px of the crops.

        Raises:
            BadInput: the crops have another shape, or the model gives something else than numbers.
        """
        wanted = (*self.input_px, 3)
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != wanted:
            raise BadInput(f"crops must be uint8 (N, {wanted[0]}, {wanted[1]}, 3), given {crops.dtype} {crops.shape}")
        if not len(crops):
            empty = np.empty((0, len(self.joints), 2))
            return Keypoints(points=empty, scores=empty[..., 0])
        upright, turns = self._upright(crops)
        reading = self.reading
        views = [ImageInputs(shown_in(view, _Crops(upright), reading), None, self.device, view) for view in reading.views]
        points, scores = predict(self.saved.network, views, reading)
        if not bool(torch.isfinite(points).all()):
            raise BadInput("the model gives keypoints that are no numbers: its training diverged; take another one")
        rows = np.arange(len(crops))
        found = points.numpy().astype(np.float64) if turns is None else turns.back(points.numpy(), rows)
        return Keypoints(points=found, scores=scores.numpy().astype(np.float64))

    def _upright(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Turned | None]:
        """The crops as the network reads them, and how they were turned."""
        if self.saved.detector is None:
            return crops, None
        turns = Turned(side_px=crops.shape[1], mark="of these crops", turns=self.saved.detector.turns(crops))
        return turns.of_images(crops, np.arange(len(crops))), turns

    def crop_of(self, person: PersonBox | None, size_px: tuple[int, int]) -> CropBox:
        """What is cut out for a person, by the rule of the importers; None: the whole picture, as large as it fits.

        Args:
            person: the box.
            size_px: width and height of the picture.
        """
        height, width = self.input_px
        if person is None:
            fitting = min(height, width) * max(size_px[0] / width, size_px[1] / height)
            middle = ((size_px[0] - 1) / 2, (size_px[1] - 1) / 2)
            # as `CropBox` lays it: a photograph's middle p = (size - 1) / 2 comes to the crop's middle (size - 1) / 2
            shift = 0.5 * fitting / min(height, width)
            return CropBox(centre=(middle[0] + shift, middle[1] + shift), box_px=fitting, height_px=height, width_px=width)
        # a box covers whole pixels: its middle lies half a pixel before the mean of its edges
        centre = (person.left + person.width / 2 - 0.5, person.top + person.height / 2 - 0.5)
        side = max(person.width, person.height) * self.box_scale
        return CropBox(centre=centre, box_px=side, height_px=height, width_px=width)

    def of_picture(self, picture: Image.Image, people: Sequence[PersonBox | None]) -> Keypoints:
        """Keypoints of the people on one RGB picture, in px of the picture."""
        boxes = [self.crop_of(person, picture.size) for person in people]
        return placed(self.of_crops(np.stack([box.cut(picture) for box in boxes])), boxes)

    def in_batches(self, crops: NDArray[np.uint8], *, at_once: int) -> Keypoints:
        """`of_crops`, some at a time."""
        parts = list(self._parts(crops, at_once))
        return Keypoints(points=np.concatenate([one.points for one in parts]), scores=np.concatenate([one.scores for one in parts]))

    def _parts(self, crops: NDArray[np.uint8], at_once: int) -> Iterator[Keypoints]:
        for start in range(0, len(crops), at_once):
            yield self.of_crops(crops[start : start + at_once])


def placed(found: Keypoints, boxes: Sequence[CropBox]) -> Keypoints:
    """Keypoints of crops in px of the photographs that the crops were cut from."""
    points = [box.to_photograph(points) for box, points in zip(boxes, found.points, strict=True)]
    return Keypoints(points=np.stack(points), scores=found.scores)
