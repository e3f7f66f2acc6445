"""Chooses how a trial reads its examples: images, features made on the fly, or cached features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from dpcore.config import AugmentationConfig, ModelConfig, Places, RuntimeFlags, digest_of
from dpcore.data.shards import ShardSet
from dpcore.data.views import StoredViews
from dpcore.errors import Unavailable
from dpcore.inference.asked import asked_for_training
from dpcore.inference.reading import PoseReading
from dpcore.inference.views import UPRIGHT, View
from dpcore.model.network import SplitNetwork
from dpcore.model.safety.in_place import Chain
from dpcore.privacy.per_example import Batch
from dpcore.train.features import Stem, cached_features
from dpcore.train.resident import resident_crops, resident_features
from dpcore.train.sources import CropSource, Examples, ImageInputs, Inputs, LabelledViews, Labels, Records, SeenThrough

NO_AUGMENTATION = AugmentationConfig()


def device_of(runtime: RuntimeFlags) -> torch.device:
    """The device of a runtime.

    Raises:
        Unavailable: cuda is requested but not available.
    """
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise Unavailable("runtime.device cuda: torch sees no CUDA device here; use device cpu or another machine")
    return torch.device(runtime.device)


@dataclass(frozen=True, kw_only=True)
class InputBuilder:
    """Inputs for one tail. Features are cached if the stem is not empty and the images are not augmented. With augmentation each step
    sees other images, so nothing can be cached.

    Attributes:
        stem: of what is trained on. scored_stem: of what is scored, the same but for `model.asked_for_training`.
    """

    stem: Stem | None
    scored_stem: Stem | None
    places: Places
    device: torch.device
    code: Mapping[str, str] = field(default_factory=dict)
    resident: bool = False

    @classmethod
    def for_split(
        cls, split: SplitNetwork, *, model: ModelConfig, places: Places, device: torch.device, resident: bool = False
    ) -> InputBuilder:
        """For the tail of `split`, which must be in its final weights below the tail; moves both to the device. `resident`: the
        examples lie there, too, but not those under photometric augmentation, which is computed on the CPU, nor turned views."""
        split.tail.to(device)
        scored = None if split.stem_is_empty else Stem.of(split.stem, model=model, code=split.code, device=device)
        stem = scored
        if model.asked_for_training is not None:
            alike = model.model_copy(update={"asked": model.asked_for_training, "asked_for_training": None})
            stem = Stem.of(Chain([asked_for_training(split.stem, model)]), model=alike, code=split.code, device=device)
        return cls(stem=stem, scored_stem=scored, places=places, device=device, code=split.code, resident=resident)

    def of_dataset(self, dataset: ShardSet, augmentation: AugmentationConfig) -> Inputs:
        """The dataset's own pixels."""
        return self._inputs(dataset, dataset.identity, augmentation, private=dataset.manifest.role == "PRIVATE", stem=self.stem)

    def scored(self, dataset: ShardSet, reading: PoseReading) -> tuple[Inputs, ...]:
        """The dataset's pixels as predictions are made of them: of each view of `reading`, in its order."""
        private, found = dataset.manifest.role == "PRIVATE", []
        for view in reading.views:
            crops, digest = shown_in(view, dataset, reading), dataset.identity
            if reading.split is not None and view.public:
                digest = f"{digest}|{digest_of(reading.split.model_dump(mode='json', exclude={'name'}))}"
            found.append(self._inputs(crops, digest, NO_AUGMENTATION, private=private, view=view, stem=self.scored_stem))
        return tuple(found)

    def of_views(self, views: StoredViews, augmentation: AugmentationConfig) -> Inputs:
        """The stored public views. Their cache is protected like that of private data, because it shows who is in the dataset."""
        return self._inputs(views, views.digest, augmentation, private=True, stem=self.stem)

    def examples(self, dataset: ShardSet, augmentation: AugmentationConfig) -> Examples:
        """Labelled examples of a PUBLIC dataset."""
        return Examples(self.of_dataset(dataset, augmentation), labels_of(dataset), augmentation, self.device)

    def view_examples(self, views: LabelledViews, augmentation: AugmentationConfig) -> Examples:
        """Public views with the labels of the public side."""
        return Examples(self.of_views(views.stored, augmentation), views.labels, augmentation, self.device)

    def records(self, dataset: ShardSet, views: LabelledViews | None, augmentation: AugmentationConfig) -> Records:
        """Private records with their own labels, paired with `views` where given."""
        paired = None if views is None else self.view_examples(views, augmentation)
        return Records(self.of_dataset(dataset, augmentation), labels_of(dataset), augmentation, self.device, views=paired)

    def _inputs(
        self,
        crops: CropSource,
        digest: str,
        augmentation: AugmentationConfig,
        *,
        private: bool,
        stem: Stem | None,
        view: View = UPRIGHT,
    ) -> Inputs:
        resident = self.resident and view == UPRIGHT
        if stem is None or not augmentation.is_identity:
            module: nn.Module | None = None if stem is None else stem.module
            if resident and not augmentation.photometric_frac:
                return resident_crops(crops, module, self.device)
            return ImageInputs(crops, module, self.device, view)
        features = cached_features(crops, stem, data_digest=digest, places=self.places, private=private, view=view)
        return resident_features(features) if resident else features


def shown_in(view: View, crops: CropSource, reading: PoseReading) -> CropSource:
    """What a view is made of: the crops, or their public views."""
    return SeenThrough(crops, reading.split) if view.public and reading.split is not None else crops


def labels_of(dataset: ShardSet) -> Labels:
    """The labels of a dataset."""
    height_px, width_px = dataset.manifest.height_px, dataset.manifest.width_px
    return Labels(dataset.keypoints, dataset.visible, height_px, width_px, dataset.skeleton, dataset.head_size_px)


def public_batch(builder: InputBuilder, public: ShardSet, count: int) -> Batch:
    """The first `count` examples of a PUBLIC dataset that show a joint, or fewer where it has fewer; no cache is made for them."""
    rows = np.flatnonzero(public.visible.any(axis=1))[:count]
    inputs = ImageInputs(public, None if builder.stem is None else builder.stem.module, builder.device)
    return Examples(inputs, labels_of(public), NO_AUGMENTATION, builder.device).batch(rows, None)
