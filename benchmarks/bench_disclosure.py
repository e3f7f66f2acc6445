"""What public views disclose over kinds and strengths of splits: numbers, a figure, and a picture sheet of synthetic people.

    python benchmarks/bench_disclosure.py [--space quick] [--steps 60] [--out benchmarks/results/disclosure]
    python benchmarks/bench_disclosure.py --space lspet --steps 0 --only gaussian_blur_6 --test-images 100 --data-dir data \\
        --out benchmarks/results/disclosure/lspet

Attackers and pose model learn from the space's PUBLIC data, and every number is a mean over PUBLIC people that no attacker saw.
Strengths are in px of the space's crops, scaled from crops of 64 px. Pictures are drawn of synthetic people only. A second table
holds the rounding against its absence: the same blur at full resolution, deconvolved from float32, uint8, and as we store it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import fft

from dpcore.config import AttackSettings, Places, RuntimeFlags, SplitConfig
from dpcore.data.splitting import AXES, deconvolve
from dpcore.disclosure.evidence import NOISE_TO_SIGNAL, Arithmetic, gather_evidence
from dpcore.disclosure.measure import Laboratory, Measured, measure_disclosure
from dpcore.disclosure.quality import psnr_db
from dpcore.privacy.disclosure import Disclosure
from search_spaces.loader import load_space
from sweeps.records.references import public_start_config
from sweeps.report.disclosure_sheet import draw_disclosure_sheet

BASE_PX = 64
STRENGTHS: dict[str, tuple[str, tuple[int, ...]]] = {
    "gaussian_blur": ("sigma_px", (1, 2, 4, 8, 16)),
    "pixelate": ("cell_px", (4, 8, 16)),
    "downsample": ("factor", (2, 4, 8)),
}
REGIONS = ("head", "person", "background")
UNROUNDED_SIGMA_PX = (2, 4)
RATIOS = (0.0, *[10.0**power for power in range(-14, -7)], *NOISE_TO_SIGNAL)
HEADER = ("split", "attacker", "PSNR dB", "SSIM", "SSIM hidden", "PCKh view", "PCKh best", "disclosure", "flag")


def splits_for(scale: int) -> list[SplitConfig]:
    """Every kind and strength, and three regions."""
    found = [
        SplitConfig(name=f"{kind}_{strength * scale}", transform=kind, **{field: strength * scale})  # type: ignore[arg-type]
        for kind, (field, strengths) in STRENGTHS.items()
        for strength in strengths
    ]
    return found + [SplitConfig(name=f"{region}_{8 * scale}", transform="pixelate", cell_px=8 * scale, region=region) for region in REGIONS]  # type: ignore[arg-type]


def unrounded(laboratory: Laboratory, sigma_px: int) -> list[dict[str, Any]]:
    """The same blur before and after rounding: PSNR and PCKh of the best deconvolution."""
    originals = laboratory.test.images()
    size_px = (originals.shape[1], originals.shape[2])
    down, right = (np.arange(length) / (2 * length) for length in size_px)
    response = np.exp(-2 * np.pi**2 * sigma_px**2 * (down[:, None] ** 2 + right[None, :] ** 2))
    blurred = fft.idctn(
        fft.dctn(originals.astype(np.float64), axes=AXES, norm="ortho") * response[None, :, :, None], axes=AXES, norm="ortho"
    )
    split = SplitConfig(name="stored", transform="gaussian_blur", sigma_px=sigma_px)
    stored = gather_evidence(laboratory.test, [Arithmetic.fitted(split, laboratory.train, laboratory.places)], laboratory.places)
    pictures = {
        "blurred, as it looks": stored.pictures[0],
        "deconvolved from what is stored (low resolution, uint8)": stored.pictures[1],
        "deconvolved from uint8": sharpest(np.rint(blurred), originals, sigma_px),
        "deconvolved from float32": sharpest(blurred.astype(np.float32), originals, sigma_px),
        "original": originals,
    }
    return [
        {"sigma_px": sigma_px, "picture": name, "psnr_db": psnr_db(picture, originals), "pckh_50": laboratory.pckh(picture)}
        for name, picture in pictures.items()
    ]


def sharpest(values: np.ndarray[Any, Any], originals: np.ndarray[Any, Any], sigma_px: float) -> np.ndarray[Any, Any]:
    """Wiener's filter at the ratio that serves the attacker best."""
    size_px = (originals.shape[1], originals.shape[2])
    tries = [deconvolve(values, sigma_px, size_px=size_px, noise_to_signal=ratio) for ratio in RATIOS[1:]]
    return max(tries, key=lambda picture: psnr_db(picture, originals) or np.inf)


def row(one: Disclosure) -> tuple[str, ...]:
    """A line of the table, scores in percent."""
    best = one.best
    return (
        " + ".join(one.splits),
        best.attacker.removeprefix(f"{one.splits[0]} "),
        decibels(best.psnr_db),
        f"{best.ssim:.2f}",
        f"{one.hidden_ssim:.2f}",
        f"{100 * one.published.pckh_50:.1f}",
        f"{100 * best.pckh_50:.1f}",
        "–" if one.disclosure is None else f"{one.disclosure:.2f}",
        "close" if one.warning else "",
    )


def decibels(psnr: float | None) -> str:
    return "∞" if psnr is None else f"{psnr:.1f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]


def readme(measured: Sequence[Measured], rounding: Sequence[dict[str, Any]], *, command: str, pictures: bool) -> str:
    """The results in words and tables."""
    first = measured[0].disclosure
    lines = [
        "# What public views disclose",
        "",
        f"`{command}`",
        "",
        f"{first.tested_on} PUBLIC test people; attackers learned from {first.trained_on} others of {', '.join(first.datasets)}. "
        f"The public model scores PCKh@0.5 {100 * first.pckh_original:.1f} on the originals and {100 * first.pckh_blind:.1f} on the "
        "mean image (blind). Disclosure = (best reconstruction − blind) / (original − blind). *SSIM hidden* is the best attacker's "
        "over the pixels that the split hides.",
        "",
        *table(HEADER, [row(one.disclosure) for one in measured]),
        "",
        "## Why views are stored as few bytes",
        "",
        *table(
            ("σ px", "picture", "PSNR dB", "PCKh"),
            [(str(one["sigma_px"]), one["picture"], decibels(one["psnr_db"]), f"{100 * one['pckh_50']:.1f}") for one in rounding],
        ),
        "",
    ]
    if pictures:
        lines += ["## Pictures (synthetic people)", "", "![original, public view, reconstruction](sheet.png)", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="quick")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--test-images", type=int, default=250)
    parser.add_argument("--only", default="", help="splits whose name begins so")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--cache-dir", type=Path, default=Path("sweep_results") / "cache")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "disclosure")
    args = parser.parse_args()
    config = public_start_config(load_space(args.space), seed=0)
    scale = config.model.input_height_px // BASE_PX
    places = Places(data_dir=args.data_dir.resolve(), cache_dir=args.cache_dir.resolve())
    laboratory = Laboratory.open(
        config, AttackSettings(steps=args.steps, test_images=args.test_images), places=places, runtime=RuntimeFlags()
    )
    splits = splits_for(scale)
    joined = [split for split in splits if split.name in (f"gaussian_blur_{4 * scale}", f"pixelate_{8 * scale}")]
    groups = [*[[split] for split in splits if split.name.startswith(args.only)], *([] if args.only else [joined])]
    measured = []
    for group in groups:
        measured.append(measure_disclosure(group, laboratory))
        print(" | ".join(row(measured[-1].disclosure)), flush=True)
    rounding = [line for sigma in UNROUNDED_SIGMA_PX for line in unrounded(laboratory, sigma * scale)]
    args.out.mkdir(parents=True, exist_ok=True)
    document = {"disclosures": [one.disclosure.model_dump(mode="json") for one in measured], "rounding": rounding}
    (args.out / "disclosure.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = [(one.disclosure, one.samples()) for one in measured]
    synthetic = all(samples.synthetic for _, samples in lines)
    if synthetic:
        draw_disclosure_sheet(lines).savefig(args.out / "sheet.png", dpi=80, metadata={"Software": None})
    only = f" --only {args.only}" if args.only else ""
    command = f"python benchmarks/bench_disclosure.py --space {args.space} --steps {args.steps} --test-images {args.test_images}{only}"
    (args.out / "README.md").write_text(readme(measured, rounding, command=command, pictures=synthetic))


if __name__ == "__main__":
    main()
