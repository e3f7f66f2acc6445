"""What an attack on public views found, and when that is too much. Torch-free: claims and reports read it."""

from __future__ import annotations

from pydantic import Field

from dpcore.config import Part

CLOSE = 0.9
"""From here on a reconstruction counts as close to the original, for `disclosure` and for SSIM over the hidden pixels.

At a disclosure of 0.9, nine in ten of the joints that a public model finds on the original are found without it. SSIM of 0.9
is what image coders give at settings that people take for the original; the blurs and pixelations that presets use lie at 0.4 to 0.7.
"""
LEAST_READABLE = 0.1
"""How far the public model's PCKh on originals must lie above its blind guess: below, the ratio is noise over noise (256 images
of 14 joints have a standard error of about 0.01)."""


class Reading(Part):
    """How one attacker's pictures compare with the originals, over the test images.

    Attributes:
        attacker: who made them.
        pckh_50: of the public model on them.
        psnr_db: over all pixels of all images; None where nothing differs.
        ssim: mean over all pixels.
        hidden_psnr_db, hidden_ssim: the same over the pixels that no view shows as they are.
    """

    attacker: str
    pckh_50: float
    psnr_db: float | None
    ssim: float
    hidden_psnr_db: float | None
    hidden_ssim: float


class Disclosure(Part):
    """What an attacker who holds the public views under `splits` recovers of an image.

    Attributes:
        splits: names; several stand for an attacker who holds all these views of each record.
        pckh_original: PCKh@0.5 of the public model on the originals.
        pckh_blind: the same on the mean image of the training people: the score of who sees nothing.
        readings: one per attacker; the views as they are published come first.
        hidden_frac: share of pixels that no view shows as they are.
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
        """The views as they are read by everybody."""
        return self.readings[0]

    @property
    def best(self) -> Reading:
        """The attacker on whose pictures the public model scores highest; of equal ones the most similar pictures."""
        return max(self.readings, key=lambda one: (one.pckh_50, one.hidden_ssim))

    @property
    def hidden_ssim(self) -> float:
        """The highest SSIM that an attacker reached over the hidden pixels."""
        return max(one.hidden_ssim for one in self.readings)

    @property
    def disclosure(self) -> float | None:
        """`split/disclosure`: the share of what a public model reads on the original that it reads on the best reconstruction.

            (PCKh(best reconstruction) − PCKh(blind)) / (PCKh(original) − PCKh(blind)),  in [0, 1]

        0 for a constant view, 1 where the view serves as well as the original. Pose is what these networks look for, and what
        survives in a picture when faces no longer do, so it is the last thing that a split takes away. Blind guessing and the
        original itself bound what an attacker can do, so the ratio ends at 0 and 1 whatever sampling error says. None where
        the model hardly reads the originals either: then nothing was measured.
        """
        readable = self.pckh_original - self.pckh_blind
        if readable < LEAST_READABLE:
            return None
        return min(max((self.best.pckh_50 - self.pckh_blind) / readable, 0.0), 1.0)

    @property
    def warning(self) -> str | None:
        """Why the public view nearly shows the image; None where it does not."""
        reasons = []
        if self.disclosure is not None and self.disclosure >= CLOSE:
            reasons.append(f"a public model reads {100 * self.disclosure:.0f} % of an image's pose from {self.best.attacker}")
        if self.hidden_ssim >= CLOSE:
            reasons.append(f"the hidden pixels are restored to an SSIM of {self.hidden_ssim:.2f}")
        return f"the public view nearly shows the image: {' and '.join(reasons)}" if reasons else None
