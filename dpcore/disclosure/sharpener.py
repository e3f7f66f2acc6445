"""The learned attacker: a small residual network that reconstructs the original from pictures of the public views.

Its input is every picture of the views (published, deconvolved, interpolated) and the mask of hidden pixels. Its output is a
correction to the best of these pictures. This sharpens a blur, and fills in a hidden region. The network starts with "no
correction", so before its first step it equals the attack without learning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dpcore.config import AttackSettings
from dpcore.data.transforms import to_tensor
from dpcore.disclosure.evidence import Evidence, People
from dpcore.disclosure.quality import Images
from dpcore.model.backbones import initialise
from dpcore.privacy.randomness import PublicStreams

WIDTH = 32
DILATIONS = (1, 2, 4, 2, 1)
"""Field of view 2 · (2 · 10 + 2) = 44 px with the two outer layers: more than twice the blur of σ = 10 px."""
FOLD = 2
"""Each 2x2 block of pixels becomes channels. This takes a fourth of the work, with no visible loss at the blurs in use."""
BRANCH_SCALE, CORRECTION_SCALE = 0.3, 0.1
"""Keep activations and first corrections small without normalisation. With 1 and 1 the first steps of Adam destroy the picture: 60
steps on 4-px cells gained 0.06 dB instead of 0.65 dB."""
PATCH_PX = 96
"""Larger crops are learned in patches, so a step costs the same for every crop size."""
ROWS_AT_ONCE = 32


class Sharpener(nn.Module):
    """Maps pictures (B, 3·P, H, W) in [-1, 1] and hidden pixels (B, 1, H, W) to a correction (B, 3, H, W)."""

    def __init__(self, pictures: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(FOLD**2 * (3 * pictures + 1), WIDTH, 3, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=d, dilation=d) for d in DILATIONS)
        self.last = nn.Conv2d(WIDTH, FOLD**2 * 3, 3, padding=1)

    def forward(self, pictures: Tensor, hidden: Tensor) -> Tensor:
        height, width = pictures.shape[2:]
        stacked = functional.pad(torch.cat([pictures, hidden], dim=1), (0, width % FOLD, 0, height % FOLD), mode="replicate")
        values = functional.relu(self.first(functional.pixel_unshuffle(stacked, FOLD)))
        for layer in self.middle:
            values = values + BRANCH_SCALE * functional.relu(layer(values))
        correction: Tensor = CORRECTION_SCALE * functional.pixel_shuffle(self.last(values), FOLD)
        return correction[:, :, :height, :width]


@dataclass(frozen=True, kw_only=True)
class LearnedAttack:
    """A trained sharpener.

    Attributes:
        base: index of the picture that it corrects.
    """

    module: Sharpener
    base: int
    device: torch.device

    def pictures(self, evidence: Evidence) -> Images:
        """Reconstructions (N, H, W, 3). Pixels that a view shows unchanged stay unchanged."""
        out = evidence.pictures[self.base].copy()
        with torch.no_grad():
            for start in range(0, len(out), ROWS_AT_ONCE):
                rows = np.arange(start, min(start + ROWS_AT_ONCE, len(out)))
                restored = _to_images(_restored(self.module, evidence, rows, base=self.base, device=self.device))
                hidden = evidence.hidden[rows]
                out[rows] = np.where(hidden[..., None], restored, out[rows])
        return out


def train_sharpener(
    evidence: Evidence, people: People, *, settings: AttackSettings, streams: PublicStreams, device: torch.device
) -> LearnedAttack:
    """Trains on pairs of PUBLIC people, with Adam, a half-cosine schedule and mean squared error over hidden pixels.

    The mean absolute error would stay at "no correction", because most pixels need none.

    Args:
        evidence: evidence about the training people.
        people: the training people.
        settings: steps, batch size and learning rate.
        streams: random streams of initialisation and batches.
        device: device to compute on.
    """
    originals = people.images()
    base = evidence.best_for(originals)
    module = Sharpener(len(evidence.pictures))
    initialise(module, streams.torch_generator("disclosure.initialisation"))
    nn.init.zeros_(module.last.weight)
    module.to(device).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=settings.learning_rate)
    for step in range(settings.steps):
        generator = streams.generator("disclosure.batch", step)
        rows = people.draw(generator, settings.batch_size)
        patch = _Patch.draw(generator, originals.shape[1:3])
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * 0.5 * (1.0 + np.cos(np.pi * step / settings.steps))
        wanted = to_tensor(patch.of(originals[rows])).to(device)
        restored = _restored(module, evidence, rows, base=base, device=device, patch=patch)
        weight = _hidden(evidence, rows, patch).to(device)
        loss = ((restored - wanted).square() * weight).sum() / weight.sum().clamp(min=1.0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return LearnedAttack(module=module.eval(), base=base, device=device)


@dataclass(frozen=True)
class _Patch:
    """A window of the crop, mirrored or not."""

    top: int = 0
    left: int = 0
    side: int | None = None
    mirrored: bool = False

    @classmethod
    def draw(cls, generator: np.random.Generator, size_px: tuple[int, ...]) -> _Patch:
        top, left = (int(generator.integers(0, max(length - PATCH_PX, 0) + 1)) for length in size_px)
        return cls(top=top, left=left, side=PATCH_PX, mirrored=bool(generator.integers(0, 2)))

    def of(self, stack: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The window of each (B, H, W, ...)."""
        down, right = (slice(start, None if self.side is None else start + self.side) for start in (self.top, self.left))
        window = stack[:, down, right]
        return window[:, :, ::-1] if self.mirrored else window


def _restored(
    module: Sharpener, evidence: Evidence, rows: NDArray[np.int64], *, base: int, device: torch.device, patch: _Patch | None = None
) -> Tensor:
    window = patch or _Patch()
    pictures = [to_tensor(window.of(picture[rows])).to(device) for picture in evidence.pictures]
    correction: Tensor = module(torch.cat(pictures, dim=1), _hidden(evidence, rows, window).to(device))
    return pictures[base] + correction


def _hidden(evidence: Evidence, rows: NDArray[np.int64], patch: _Patch) -> Tensor:
    window = patch.of(evidence.hidden[rows].astype(np.uint8))
    return torch.from_numpy(np.ascontiguousarray(window)).float()[:, None]


def _to_images(values: Tensor) -> Images:
    pixels = ((values.cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.asarray(pixels.permute(0, 2, 3, 1).numpy(), dtype=np.uint8)
