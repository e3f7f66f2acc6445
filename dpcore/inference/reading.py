"""From what a network says of the views of crops to keypoints. Evaluator, `predict` and the exported model all go through here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dpcore.config import EvaluationConfig, ModelConfig, SplitConfig
from dpcore.errors import BadInput
from dpcore.inference.fusing import FUSES, UprightMaps
from dpcore.inference.joint_mixer import certainties
from dpcore.inference.readouts import MixesPoints, Readout, ReadsDirectly, readout_of, takes_any_size
from dpcore.inference.views import View, views_of
from dpcore.pose.skeleton import Skeleton

PosePoints = tuple[Tensor, Tensor]
"""Keypoints (B, K, 2) px and confidences (B, K) in 0 … 1."""


@dataclass(frozen=True, kw_only=True)
class PoseReading:
    """How a model is asked for keypoints: which views its network reads, and what is made of its outputs.

    Attributes:
        readout: of the network's head.
        views: what the network reads, in this order.
        fuse: a name in `FUSES`. confidence_power: of its weights.
        temperature: of the softmax over a view's maps.
        size_px: height and width of a crop.
        split: what makes the public view of a crop, where a view is of that.
    """

    readout: Readout
    views: tuple[View, ...]
    fuse: str
    confidence_power: float
    temperature: float
    size_px: tuple[int, int]
    split: SplitConfig | None = None

    @classmethod
    def of(cls, model: ModelConfig, evaluation: EvaluationConfig, skeleton: Skeleton) -> PoseReading:
        """As a trial's config says, for the joints of `skeleton`.

        Raises:
            BadInput: the head's readout does not load.
        """
        return cls(
            readout=readout_of(model, skeleton),
            views=views_of(evaluation, grows=takes_any_size(model)),
            fuse=evaluation.fuse,
            confidence_power=evaluation.confidence_power,
            temperature=evaluation.temperature,
            size_px=(model.input_height_px, model.input_width_px),
            split=evaluation.view,
        )

    @property
    def is_direct(self) -> bool:
        """Whether keypoints are read without maps: of the upright crop, or of its plain mean with its mirror image."""
        one_kind = len({view.public for view in self.views}) == 1
        plain = one_kind and self.fuse == "mean" and self.temperature == 1 and all(view.is_upright for view in self.views)
        return plain and isinstance(self.readout, ReadsDirectly) and (self.readout.flips_directly or len(self.views) == 1)

    def points(self, outputs: Sequence[Any]) -> PosePoints:
        """Keypoints and confidences from the network's outputs on each view, in the order of `views`."""
        if self.is_direct and isinstance(self.readout, ReadsDirectly):
            return self.readout.points_of(outputs[0], outputs[1] if len(outputs) > 1 else None)
        points, confidence = self.readout.points(self.fused(outputs))
        if not isinstance(self.readout, MixesPoints):
            return points, confidence
        shares = self.readout.shares_of(outputs[0])
        return torch.einsum("bkj,bjc->bkc", shares, points), torch.einsum("bkj,bj->bk", certainties(shares), confidence)

    def fused(self, outputs: Sequence[Any]) -> Tensor:
        """Probability maps (B, M, Hm, Wm) of the upright crops, of all views together."""
        return self.together(self.upright(outputs))

    def together(self, views: Iterable[UprightMaps]) -> Tensor:
        """One map (B, M, Hm, Wm) of each joint from those of views, brought back to the upright crops."""
        return FUSES[self.fuse](self.confidence_power)(views)

    def points_in(self, images: Tensor, network: Callable[[Tensor], Any]) -> PosePoints:
        """Keypoints and confidences of crops (B,3,H,W) in [-1, 1], each view through the network.

        Raises:
            BadInput: a view is of the crops' public views, which are made from bytes.
        """
        if self.split is not None:
            raise BadInput(f"evaluation.inputs: the public view {self.split.name} is made from bytes; use the model's folder with predict")
        return self.points([network(view.of_images(images)) for view in self.views])

    def upright(self, outputs: Sequence[Any]) -> Iterator[UprightMaps]:
        """The probability maps of each view, brought back to the upright crops, with confidences."""
        swapped = list(self.readout.mirrored)
        finest = max(range(len(outputs)), key=lambda index: self.views[index].scale)
        # the finest grid of all views: a coarser map is interpolated, and no peak is lost
        grid = self.readout.maps(outputs[finest]).logits.shape[2:]
        for view, one in zip(self.views, outputs, strict=True):
            maps = self.readout.maps(one)
            confidence = maps.confidence[:, swapped] if view.flip else maps.confidence
            yield view.upright(maps.probabilities(self.temperature), mirrored=swapped, grid=(grid[0], grid[1])), confidence
