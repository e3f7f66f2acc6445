"""Draws a `Person`: capsules with cloth, skin and light over a cluttered background.

Body parts are drawn far to near into an index mask at three times the resolution; colour, cloth pattern and light are
then computed for the person's pixels at once, in each part's own coordinates (along and across the limb), so that
cloth follows the limb and a limb is round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dpcore.data.people import FOOT_CM, HEAD_CM, HEAD_WIDTH_CM, JOINTS, Person

SUPERSAMPLING: Final = 3
OCCLUDER: Final = 255
"""Index of the foreground object in the mask; parts count from 1, 0 is background."""

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a domain looks: cloth, light, surroundings, sensor. Colours 0 … 255."""

    patterned_prob: float
    pattern_contrast: float
    pattern_period_px: tuple[float, float]
    cloth_saturation: float
    bare_limb_prob: float
    ambient: float
    light_side: float
    cast: tuple[float, float, float]
    exposure: tuple[float, float]
    background_value: tuple[float, float]
    background_cells: int
    background_contrast: float
    clutter: tuple[int, int]
    limb_like_clutter: bool
    occluder_prob: float
    noise_stddev: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Paint:
    """Two colours and the stripes (or checks) that mix them. A period of infinity is plain."""

    colour: Floats
    other: Floats
    period_px: float = np.inf
    check: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class BodyPart:
    """A tapered capsule from `start` to `end`, px of the crop, z towards the camera."""

    start: Floats
    end: Floats
    start_radius_px: float
    end_radius_px: float
    paint: Paint
    extra: tuple[Floats, ...] = ()  # corners that fill the outline, for the torso


@dataclass(frozen=True, kw_only=True, eq=False)
class Wardrobe:
    skin: Paint
    hair: Paint
    shirt: Paint
    trousers: Paint
    shoes: Paint
    forearm: Paint
    shin: Paint


def render_person(
    person: Person, look: Look, generator: np.random.Generator, *, size_px: int, labels_px: Floats
) -> tuple[Pixels, NDArray[np.bool_]]:
    """The crop, (size, size, 3) uint8, and which of the labels (16, 2) a foreground object hides (16,)."""
    canvas = Image.fromarray(_background(look, generator, size_px))
    _draw_clutter(canvas, look, generator)
    parts = sorted(_parts_of(person, _draw_wardrobe(look, generator)), key=lambda part: float(part.start[2] + part.end[2]))
    mask_image = Image.new("L", canvas.size, 0)
    on_mask = ImageDraw.Draw(mask_image)
    for index, part in enumerate(parts, start=1):
        _draw_part(on_mask, part, index)
    if generator.random() < look.occluder_prob:
        _draw_occluder(mask_image, person, generator)
    mask = np.asarray(mask_image)
    pixels = np.array(canvas)
    _shade(pixels, mask, parts, look, generator)
    small = np.asarray(Image.fromarray(pixels).reduce(SUPERSAMPLING), dtype=np.float64)
    return _expose(small, look, generator), _hidden_labels(labels_px, mask, size_px)


def _parts_of(person: Person, wear: Wardrobe) -> list[BodyPart]:
    joints, cm = person.joints, person.px_per_cm

    def part(start: Floats, end: Floats, radii_cm: tuple[float, float], paint: Paint, extra: tuple[Floats, ...] = ()) -> BodyPart:
        return BodyPart(start=start, end=end, start_radius_px=radii_cm[0] * cm, end_radius_px=radii_cm[1] * cm, paint=paint, extra=extra)

    at = {name: joints[index] for name, index in JOINTS.items()}
    corners = tuple(at[name] for name in ("r_shoulder", "l_shoulder", "l_hip", "r_hip"))
    parts = [
        part(at["pelvis"], at["thorax"], (10.5, 11.5), wear.shirt, corners),
        part(at["r_hip"], at["l_hip"], (8.5, 8.5), wear.trousers),
        part(at["thorax"], at["upper_neck"], (5.0, 5.0), wear.skin),
    ]
    for number, side in enumerate("rl"):
        wrist, elbow, ankle = at[f"{side}_wrist"], at[f"{side}_elbow"], at[f"{side}_ankle"]
        hand = wrist + 0.3 * (wrist - elbow)
        parts += [
            part(at[f"{side}_shoulder"], elbow, (6.2, 4.8), wear.shirt),
            part(elbow, wrist, (4.6, 3.5), wear.forearm),
            part(wrist, hand, (3.6, 4.0), wear.skin),
            part(at[f"{side}_hip"], at[f"{side}_knee"], (8.5, 6.2), wear.trousers),
            part(at[f"{side}_knee"], ankle, (6.0, 4.2), wear.shin),
            part(ankle, ankle + FOOT_CM * cm * person.toes[number], (4.6, 3.8), wear.shoes),
        ]
    return parts + _head_parts(person, wear)


def _head_parts(person: Person, wear: Wardrobe) -> list[BodyPart]:
    """Skull, hair at the top and back, eyes and mouth in front: what tells front from back and so left from right."""
    cm, forward = person.px_per_cm, person.forward
    neck, top = person.joints[JOINTS["upper_neck"]], person.joints[JOINTS["head_top"]]
    up = (top - neck) / (HEAD_CM * cm)
    side = np.cross(up, forward)
    radius, centre = HEAD_WIDTH_CM / 2, (neck + top) / 2

    def ball(offset: Floats, radius_cm: float, paint: Paint, stretch_cm: float = 0.0) -> BodyPart:
        middle = centre + cm * offset
        half = stretch_cm * cm * up
        return BodyPart(start=middle - half, end=middle + half, start_radius_px=radius_cm * cm, end_radius_px=radius_cm * cm, paint=paint)

    dark = Paint(colour=np.array([25.0, 20, 22]), other=np.array([25.0, 20, 22]))
    lips = Paint(colour=np.array([150.0, 50, 55]), other=np.array([150.0, 50, 55]))
    return [
        ball(np.zeros(3), radius, wear.skin, HEAD_CM / 2 - radius),
        ball(4.5 * up - 5.0 * forward, radius, wear.hair),
        ball(8.0 * up - 1.5 * forward, radius - 3.2, wear.hair),
        ball(1.5 * up + 11.5 * forward + 5.0 * side, 2.1, dark),
        ball(1.5 * up + 11.5 * forward - 5.0 * side, 2.1, dark),
        ball(-8.0 * up + 11.0 * forward, 2.3, lips),
    ]


def _draw_wardrobe(look: Look, generator: np.random.Generator) -> Wardrobe:
    def plain(colour: Floats) -> Paint:
        return Paint(colour=colour, other=colour)

    def cloth() -> Paint:
        colour = _colour(generator, look.cloth_saturation)
        if generator.random() >= look.patterned_prob:
            return plain(colour)
        other = colour + look.pattern_contrast * (_colour(generator, look.cloth_saturation) - colour)
        return Paint(colour=colour, other=other, period_px=generator.uniform(*look.pattern_period_px), check=generator.random() < 0.4)

    tone = generator.uniform(0, 1)
    skin = plain((1 - tone) * np.array([236.0, 198, 172]) + tone * np.array([98.0, 64, 46]))
    shirt, trousers = cloth(), cloth()
    return Wardrobe(
        skin=skin,
        hair=plain(generator.uniform(0.1, 1.0) * np.array([150.0, 110, 70])),
        shirt=shirt,
        trousers=trousers,
        shoes=plain(_colour(generator, 0.3)),
        forearm=skin if generator.random() < look.bare_limb_prob else shirt,
        shin=skin if generator.random() < look.bare_limb_prob else trousers,
    )


def _colour(generator: np.random.Generator, saturation: float) -> Floats:
    grey = generator.uniform(30, 230)
    return np.minimum(np.maximum(grey + saturation * (generator.uniform(0, 255, size=3) - 127), 5), 250)


def _background(look: Look, generator: np.random.Generator, size_px: int) -> Pixels:
    """Smooth colour noise of a few cells, brighter or darker towards the floor."""
    cells = look.background_cells
    base = generator.uniform(*look.background_value) + 0.35 * (_colour(generator, 1.0) - 127)
    noise = base + look.background_contrast * generator.normal(size=(cells, cells, 3)) * np.array([1.0, 0.9, 0.9])
    noise += generator.normal(0, 18) * np.linspace(-1, 1, cells)[:, None, None]
    side = size_px * SUPERSAMPLING
    smooth = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(smooth)


def _draw_clutter(canvas: Image.Image, look: Look, generator: np.random.Generator) -> None:
    draw, side = ImageDraw.Draw(canvas), canvas.width
    for _ in range(int(generator.integers(look.clutter[0], look.clutter[1] + 1))):
        fill = tuple(int(v) for v in np.clip(_colour(generator, 0.6) * generator.uniform(0.5, 1.0), 0, 255))
        x, y = generator.uniform(-0.1, 1.1, size=2) * side
        if look.limb_like_clutter and generator.random() < 0.75:
            angle, length = generator.uniform(0, np.pi), generator.uniform(0.15, 0.5) * side
            tip = (x + length * np.cos(angle), y + length * np.sin(angle))
            draw.line([(x, y), tip], fill=fill, width=int(generator.uniform(0.02, 0.075) * side))
        else:
            width, height = generator.uniform(0.1, 0.6, size=2) * side
            draw.rectangle([x, y, x + width, y + height], fill=fill)


def _draw_occluder(mask: Image.Image, person: Person, generator: np.random.Generator) -> None:
    """A box or post in front of a random joint, like furniture or equipment."""
    side = mask.width
    x, y = (person.joints[int(generator.integers(len(person.joints))), :2] + 0.5) * SUPERSAMPLING
    width, height = (0.09, 1.2) if generator.random() < 0.4 else generator.uniform(0.12, 0.3, size=2)
    left, top = x - generator.uniform(0.2, 0.8) * width * side, y - generator.uniform(0.2, 0.8) * height * side
    ImageDraw.Draw(mask).rectangle([left, top, left + width * side, top + height * side], fill=OCCLUDER)


def _draw_part(draw: ImageDraw.ImageDraw, part: BodyPart, index: int) -> None:
    (ax, ay), (bx, by) = ((point[:2] + 0.5) * SUPERSAMPLING for point in (part.start, part.end))
    ra, rb = part.start_radius_px * SUPERSAMPLING, part.end_radius_px * SUPERSAMPLING
    length = float(np.hypot(bx - ax, by - ay))
    if length > 1e-6:
        nx, ny = -(by - ay) / length, (bx - ax) / length
        outline = [(ax + ra * nx, ay + ra * ny), (bx + rb * nx, by + rb * ny), (bx - rb * nx, by - rb * ny), (ax - ra * nx, ay - ra * ny)]
        draw.polygon(outline, fill=index)
    draw.ellipse([ax - ra, ay - ra, ax + ra, ay + ra], fill=index)
    draw.ellipse([bx - rb, by - rb, bx + rb, by + rb], fill=index)
    if part.extra:
        corners = [tuple((point[:2] + 0.5) * SUPERSAMPLING) for point in part.extra]
        draw.polygon(corners, fill=index)
        draw.line([*corners, corners[0]], fill=index, width=max(1, round(ra)), joint="curve")


def _shade(pixels: Pixels, mask: NDArray[np.uint8], parts: list[BodyPart], look: Look, generator: np.random.Generator) -> None:
    """Colours the person's pixels in place: cloth pattern in limb coordinates, then a round limb under one light."""
    occluder = _colour(generator, 0.5)
    light = np.array([look.light_side * generator.choice([-1.0, 1.0]) + generator.normal(0, 0.3), -0.7, 0.8])
    light /= np.linalg.norm(light)
    flat = np.flatnonzero((mask > 0) & (mask < OCCLUDER))
    rows, columns = np.divmod(flat.astype(np.int32), mask.shape[1])
    index = mask.ravel()[flat].astype(np.intp) - 1
    axes = np.stack([part.end[:2] - part.start[:2] for part in parts])
    axes /= np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), 1e-6)
    starts = np.stack([part.start[:2] for part in parts])
    centres = (np.arange(max(mask.shape)) + 0.5) / SUPERSAMPLING - 0.5
    x, y = centres[columns] - starts[:, 0][index], centres[rows] - starts[:, 1][index]
    ux, uy = axes[:, 0][index], axes[:, 1][index]
    across = y * ux - x * uy
    colours = np.array([part.paint.colour for part in parts] + [part.paint.other for part in parts])
    colour = colours[index + len(parts) * _is_other(parts, index, x * ux + y * uy, across)]
    across /= np.array([_shading_radius_px(part) for part in parts])[index]
    slope = np.minimum(np.maximum(across, -0.98, out=across), 0.98, out=across)
    facing = slope * (axes[:, 0] * light[1] - axes[:, 1] * light[0])[index] + np.sqrt(1 - slope**2) * light[2]
    lit = look.ambient + (1.15 - look.ambient) * np.maximum(facing, 0)
    colour *= lit[:, None]
    pixels.reshape(-1, 3)[flat] = np.minimum(np.maximum(colour, 0, out=colour), 255, out=colour).astype(np.uint8)
    pixels[mask == OCCLUDER] = occluder.astype(np.uint8)


def _is_other(parts: list[BodyPart], index: NDArray[np.intp], along: Floats, across: Floats) -> NDArray[np.bool_]:
    """Which pixels (N,), of the parts `index`, have their paint's other colour: on every second stripe or check. Plain paint has none."""
    period = np.array([part.paint.period_px for part in parts])
    found = np.zeros(len(index), dtype=bool)
    striped = np.flatnonzero(np.isfinite(period)[index])
    if not striped.size:
        return found
    wave = (2 * np.pi / period)[index[striped]]
    stripes = np.sin(wave * along[striped])
    checked = np.flatnonzero(np.array([part.paint.check for part in parts])[index[striped]])
    stripes[checked] *= np.cos(wave[checked] * across[striped[checked]])
    found[striped] = stripes > 0
    return found


def _shading_radius_px(part: BodyPart) -> float:
    if not part.extra:
        return max(part.start_radius_px, part.end_radius_px)
    return max(part.start_radius_px, 0.6 * float(np.linalg.norm(part.extra[0][:2] - part.extra[1][:2])))


def _expose(image: Floats, look: Look, generator: np.random.Generator) -> Pixels:
    """Light colour, exposure and sensor noise."""
    cast = np.array(look.cast) * generator.uniform(*look.exposure)
    noise = generator.standard_normal(image.shape)
    noise *= look.noise_stddev
    noise += image * cast
    return np.clip(np.rint(noise, out=noise), 0, 255, out=noise).astype(np.uint8)


def _hidden_labels(labels_px: Floats, mask: NDArray[np.uint8], size_px: int) -> NDArray[np.bool_]:
    inside = np.clip(np.rint(labels_px).astype(np.int64), 0, size_px - 1) * SUPERSAMPLING + SUPERSAMPLING // 2
    hidden: NDArray[np.bool_] = mask[inside[:, 1], inside[:, 0]] == OCCLUDER
    return hidden
