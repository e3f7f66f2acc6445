"""The result of an attack on public views, and the limit above which it gives a warning. Torch-free: claims and reports read it."""

from __future__ import annotations

from pydantic import Field

from dpcore.config import Part

CLOSE = 0.9
"""From this value on a reconstruction counts as close to the original, for `disclosure` and for SSIM over the hidden pixels.

At a disclosure of 0.9, a public model finds nine in ten of the joints without the original. Image coders reach an SSIM of 0.9 at
settings that people do not tell from the original. The blurs and pixelations of the presets reach 0.4 to 0.7.
"""
LEAST_READABLE = 0.1
"""How far the public model's PCKh on originals must exceed its blind guess. Below, the ratio is noise over noise (256 images of 14
joints have a standard error of about 0.01)."""


class Reading(Part):
    """How one attacker's pictures compare with the originals, over the test images.

    Attributes:
        attacker: name of the attacker.
        pckh_50: PCKh@0.5 of the public model on the pictures.
        psnr_db: over all pixels of all images; None if the pictures are equal.
        ssim: mean over all pixels.
        hidden_psnr_db, hidden_ssim: the same over the pixels that no view shows unchanged.
    """

    attacker: str
    pckh_50: float
    psnr_db: float | None
    ssim: float
    hidden_psnr_db: float | None
    hidden_ssim: float


class Disclosure(Part):
    """What an attacker with the public views under `splits` recovers of an image.

    Attributes:
        splits: names. With several names the attacker holds all these views of each record.
        pckh_original: PCKh@0.5 of the public model on the originals.
        pckh_blind: the same on the mean image of the training people, which is the score of a blind guess.
        readings: one per attacker. The published views come first.
        hidden_frac: share of pixels that no view shows unchanged.
        trained_on, tested_on: PUBLIC images behind the learned attacker, and behind every number.
        datasets: names of the PUBLIC datasets.
    """

    splits: tuple[str, ...] = Field(min_length=1)
    pckh_original: float
    pckh_blind: float
    readings: tuple[Reading, ...] = Field(min_length=1)
    hidden_frac: float
    trained_on: int
    tested_on: int
    datasets: tuple[str, ...]

    @property
    def published(self) -> Reading:
        """The views as published."""
        return self.readings[0]

    @property
    def best(self) -> Reading:
        """The attacker with the highest score of the public model. Among equal scores, the one with the most similar pictures."""
        return max(self.readings, key=lambda one: (one.pckh_50, one.hidden_ssim))

    @property
    def hidden_ssim(self) -> float:
        """The highest SSIM of any attacker over the hidden pixels."""
        return max(one.hidden_ssim for one in self.readings)

    @property
    def disclosure(self) -> float | None:
        """`split/disclosure`: the share of what a public model reads on the original that it reads on the best reconstruction.

            (PCKh(best reconstruction) − PCKh(blind)) / (PCKh(original) − PCKh(blind)),  in [0, 1]

        It is 0 for a constant view, and 1 if the view serves as well as the original. Pose is what these networks look for. It
        survives in a picture longer than faces, so a split removes it last. A blind guess and the original bound any attacker, so
        sampling error cannot move the ratio below 0 or above 1. It is None if the model hardly reads the originals: then nothing
        was measured.
        """
        readable = self.pckh_original - self.pckh_blind
        if readable < LEAST_READABLE:
            return None
        return min(max((self.best.pckh_50 - self.pckh_blind) / readable, 0.0), 1.0)

    @property
    def warning(self) -> str | None:
        """Why the public view nearly shows the image, or None."""
        reasons = []
        if self.disclosure is not None and self.disclosure >= CLOSE:
            reasons.append(f"a public model reads {100 * self.disclosure:.0f} % of an image's pose from {self.best.attacker}")
        if self.hidden_ssim >= CLOSE:
            reasons.append(f"the hidden pixels are restored to an SSIM of {self.hidden_ssim:.2f}")
        return f"the public view nearly shows the image: {' and '.join(reasons)}" if reasons else None
