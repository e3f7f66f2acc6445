"""Draws the pictures of the explanation: the private step, a public view, and what choosing costs.

    python docs/_site/pictures.py            # writes docs/assets/*.svg

Everything in them is computed or drawn here: people are synthetic, prices are those of the accountant. A test holds the committed files
against what this script draws.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpcore.config import SplitConfig
from dpcore.data.splitting import decode_view, encode_view
from dpcore.data.synthetic import draw_record
from dpsweep import epsilon

ASSETS = Path(__file__).resolve().parents[1] / "assets"
INK, PALE, PRIVATE, PUBLIC = "#22303c", "#eef2f5", "#d55e00", "#0072b2"
FONT = "font-family='DejaVu Sans, Verdana, sans-serif'"
"""Colours that colour-blind people tell apart (Okabe and Ito)."""
SPLIT = SplitConfig(name="blur_3", transform="gaussian_blur", sigma_px=3)
TRIALS = (1, 2, 4, 8, 12, 16, 20, 24)
EPSILON, SAMPLING_PROB, STEPS, DELTA = 0.8, 0.064, 60, 1e-5
"""Of the priced trials: q and ε are those of the preset quick."""


def text(x: float, y: float, words: str, *, size: int = 14, anchor: str = "middle", fill: str = INK, bold: bool = False) -> str:
    """One line of text."""
    weight = " font-weight='bold'" if bold else ""
    return f"<text x='{x:g}' y='{y:g}' font-size='{size}' text-anchor='{anchor}' fill='{fill}' {FONT}{weight}>{escape(words)}</text>"


def document(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """A whole SVG, white, with a title for screen readers."""
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' role='img'>"
    return (
        "\n".join([head, f"<title>{escape(title)}</title>", f"<rect width='{width}' height='{height}' fill='#fff'/>", *parts, "</svg>"])
        + "\n"
    )


def box(x: float, y: float, width: float, height: float, *, stroke: str, fill: str = "#fff") -> str:
    """A rounded rectangle."""
    return f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='6' fill='{fill}' stroke='{stroke}' stroke-width='1.6'/>"


def arrow(x1: float, y1: float, x2: float, y2: float, *, colour: str = INK) -> str:
    """A line with a head at its end."""
    angle = math.atan2(y2 - y1, x2 - x1)
    tips = [(x2 - 8 * math.cos(angle + side), y2 - 8 * math.sin(angle + side)) for side in (0.45, -0.45)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(x2, y2), *tips])
    line = f"<line x1='{x1:g}' y1='{y1:g}' x2='{x2:g}' y2='{y2:g}' stroke='{colour}' stroke-width='1.6'/>"
    return f"{line}<polygon points='{points}' fill='{colour}'/>"


def private_step() -> str:
    """The six things of a step, and the line that only a noised sum crosses."""
    steps = [
        ("1 sample", "each unit with", "probability q"),
        ("2 gradient", "one row for", "each unit"),
        ("3 clip", "norm at", "most C"),
        ("4 sum", "of all", "rows"),
        ("5 noise", "standard", "deviation σC"),
    ]
    parts = [box(12, 40, 708, 138, stroke=PRIVATE, fill="#fdf3ec")]
    parts.append(text(24, 62, "inside: computed from private images, seen by nobody", anchor="start", fill=PRIVATE, size=13))
    for number, (name, first, second) in enumerate(steps):
        x = 26 + 139 * number
        parts += [box(x, 80, 116, 80, stroke=INK), text(x + 58, 104, name, bold=True), text(x + 58, 126, first, size=12)]
        parts += [text(x + 58, 144, second, size=12), *([arrow(x + 116, 120, x + 137, 120)] if number < 4 else [])]
    parts += [arrow(698, 120, 760, 120), box(762, 80, 126, 80, stroke=PUBLIC, fill="#eaf4fb"), text(825, 104, "6 post-process", bold=True)]
    parts += [text(825, 126, "divide by B,", size=12), text(825, 144, "take a step", size=12)]
    parts.append(text(825, 62, "outside: released", fill=PUBLIC, size=13))
    parts += [box(440, 206, 448, 56, stroke=PUBLIC, fill="#eaf4fb"), arrow(825, 206, 825, 162, colour=PUBLIC)]
    parts.append(text(664, 229, "public term ḡ_pub and subspace V: from public images and views", size=12))
    parts.append(text(664, 248, "alone, of a batch that is drawn independently", size=12))
    return document(900, 274, "The private step: sample, gradient, clip, sum, noise; only what is noised leaves", parts)


def png(pixels: NDArray[np.uint8]) -> str:
    """A picture as a data URL."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def split_picture() -> str:
    """A synthetic person, its public view, and what feature DP protects: their difference."""
    image = draw_record("private", seed=11, index=3).image
    stored = encode_view(image[None], SPLIT)
    view = decode_view(stored, SPLIT, size_px=image.shape[:2])[0]
    hidden = np.clip(128 + (image.astype(np.int16) - view), 0, 255).astype(np.uint8)
    parts = []
    shown = [
        ("image x", "what the data's owner holds", image, INK),
        ("public view ψ(x)", "given to the attacker", view, PUBLIC),
        ("x − ψ(x)", "what feature DP protects", hidden, PRIVATE),
    ]
    for number, (name, meaning, pixels, colour) in enumerate(shown):
        x = 20 + 296 * number
        parts.append(f"<image x='{x}' y='16' width='256' height='256' href='{png(pixels)}' image-rendering='pixelated'/>")
        parts.append(f"<rect x='{x}' y='16' width='256' height='256' fill='none' stroke='{colour}' stroke-width='2'/>")
        parts += [text(x + 128, 296, name, bold=True, fill=colour), text(x + 128, 316, meaning, size=12)]
    parts += [text(296, 150, "=", size=26), text(592, 150, "+", size=26)]
    return document(888, 330, "A synthetic person, its blurred public view, and the difference that feature DP protects", parts)


def prices() -> dict[str, list[tuple[int, float]]]:
    """Line → (trials, ε of the sweep): by the accountant of the regime."""
    asked = {"sampling_prob": SAMPLING_PROB, "steps": STEPS, "delta": DELTA, "target_epsilon": EPSILON}
    composed = [(count, epsilon(**asked, composed=count).sweep_epsilon) for count in TRIALS]
    selected = [
        (count, epsilon(**asked, accountant="profile", mean_trials=count, shape=1.0).sweep_epsilon) for count in TRIALS if count > 1
    ]
    return {
        "every trial is released (composed)": [(count, found) for count, found in composed if found is not None],
        "only the best is released (private selection)": [(count, found) for count, found in selected if found is not None],
    }


def price_picture() -> str:
    """What choosing the best of so many trials costs, against what each of them spends."""
    left, top, width, height, most = 70, 30, 620, 270, 5.0

    def place(trials: float, cost: float) -> tuple[float, float]:
        return left + width * trials / TRIALS[-1], top + height * (1 - cost / most)

    parts = [f"<path d='M{left} {top}V{top + height}H{left + width}' fill='none' stroke='{INK}' stroke-width='1.4'/>"]
    for cost in range(int(most) + 1):
        x, y = place(0, cost)
        parts += [text(x - 10, y + 5, str(cost), anchor="end", size=12)]
        parts.append(f"<line x1='{left}' x2='{left + width}' y1='{y:g}' y2='{y:g}' stroke='{PALE}'/>" if cost else "")
    parts += [text(place(count, 0)[0], top + height + 20, str(count), size=12) for count in TRIALS]
    parts += [text(left + width / 2, top + height + 44, "trials at ε = 0.8 (of a selection: on average)", size=13)]
    parts += [text(left - 10, 20, "ε of the sweep", anchor="start", size=13)]
    for (name, points), colour, dash, above in zip(prices().items(), (PRIVATE, PUBLIC), ("none", "7 4"), (-14, -16), strict=True):
        line = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
        parts.append(f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='2.4' stroke-dasharray='{dash}'/>")
        parts += ["<circle cx='{:.1f}' cy='{:.1f}' r='3.4' fill='{}'/>".format(*place(*point), colour) for point in points]
        x, y = place(*points[-3])
        parts.append(text(x, round(y) + above, f"{name}: {points[-1][1]:.2f} at {points[-1][0]}", fill=colour, anchor="end", size=13))
    x, y = place(0, EPSILON)
    parts.append(f"<line x1='{x}' x2='{x + width}' y1='{y:g}' y2='{y:g}' stroke='{INK}' stroke-dasharray='2 4'/>")
    parts.append(text(x + width, y + 18, "what each trial spends: 0.80", anchor="end", size=12))
    return document(
        720, 356, "The price of choosing grows with the number of trials; what each trial spends does not", [p for p in parts if p]
    )


PICTURES: dict[str, Callable[[], str]] = {
    "private_step.svg": private_step,
    "public_view.svg": split_picture,
    "price_of_choosing.svg": price_picture,
}

if __name__ == "__main__":
    ASSETS.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (ASSETS / name).write_text(draw(), encoding="utf-8")
