"""A model as one ONNX file: crops in, keypoints out. It is written only if its keypoints are those of torch.

    images        (B, H, W, 3) uint8, RGB crops of the model's input size, any B
    keypoints_px  (B, K, 2) float32, px of the crop, x right and y down, pixel centres at integers
    scores        (B, K) float32 in 0 … 1

Scaling, views, their fusing and decoding are part of the graph. Claim, price, joint names and the weights' digest stand in its metadata.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dpcore.durable import write_new_file
from dpcore.errors import Refused, Unavailable
from dpcore.inference.asked import AskedNetwork
from dpcore.inference.reading import PoseReading
from dpcore.model.network import PoseNetwork
from sweeps.models.claims import CLAIM_KEY, ModelClaim
from sweeps.models.keypoints.estimator import PoseEstimator

OPSET = 18
"""The operators' version. ONNX Runtime reads it from 1.14 (2023) on."""
TOLERANCE_PX = 0.05
"""Of a keypoint: float32 sums in another order give thousandths of a px, a wrong operator gives whole ones."""
INPUT, KEYPOINTS, SCORES = "images", "keypoints_px", "scores"
CHECKED = 8
"""Crops of each kind that are compared."""


@dataclass(frozen=True, kw_only=True)
class OnnxCheck:
    """How far the keypoints of ONNX Runtime are from torch's.

    Attributes:
        opset: version of the operators.
        random_px: largest difference on crops of uniform noise, px.
        people_px: the same on crops of synthetic people.
        in_float32: torch was asked in float32 here, as the graph is, and asks in bfloat16 elsewhere.
    """

    opset: int
    random_px: float
    people_px: float
    in_float32: bool = False

    def text(self) -> str:
        """For a person."""
        return (
            f"opset {self.opset}; largest difference from torch: {self.people_px:.2g} px on people, {self.random_px:.2g} px on noise, "
            f"at most {TOLERANCE_PX:g} px are let pass"
        ) + (
            "; both in float32: ONNX Runtime has no convolution in bfloat16, in which the model is asked elsewhere"
            if self.in_float32
            else ""
        )


class CropsToKeypoints(nn.Module):
    """A whole prediction as one module: bytes of crops to keypoints and scores."""

    def __init__(self, network: PoseNetwork, reading: PoseReading) -> None:
        """Of a network and of how keypoints are read from it."""
        super().__init__()
        self.network = network
        self.reading = reading

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (B, K, 2) px and scores (B, K) of crops (B, H, W, 3) uint8."""
        inputs = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        return self.reading.points_in(inputs, self.network)


def export_onnx(source: Path, out: Path, made: ModelClaim) -> OnnxCheck:
    """Writes the model in `source` as a new file, after ONNX Runtime gave torch's keypoints for it.

    Args:
        source: folder of a model.
        out: the new file.
        made: its claim, which goes along.

    Raises:
        BadInput: no model there. Corrupt: its weights are not those that were written.
        Unavailable: onnx, onnxruntime or onnxscript is not installed.
        Refused: the network has an operation that ONNX lacks, keypoints differ by more than `TOLERANCE_PX`, or the evaluation reads
            public views, or crops are turned upright first.
    """
    _require_libraries()
    estimator = PoseEstimator.load(source)
    reading = estimator.reading
    if reading.split is not None:
        raise Refused(f"the model asks about public views ({reading.split.name}), which are made from bytes; use the exported folder")
    if estimator.saved.detector is not None:
        raise Refused("the model's crops are turned upright by a detector, and a graph has one network; use the exported folder")
    in_float32 = _asked_in_float32(estimator.saved.network)
    module = CropsToKeypoints(estimator.saved.network, reading).eval()
    content = _graph(module, estimator, made)
    check = replace(_checked(content, estimator), in_float32=in_float32)
    write_new_file(out, content)
    return check


def _asked_in_float32(network: PoseNetwork) -> bool:
    """Sees to it that no part of the network computes in bfloat16; whether one did."""
    half = [module for module in network.modules() if isinstance(module, AskedNetwork) and module.precision == "bf16"]
    for module in half:
        module.precision = "fp32"
    return bool(half)


def _require_libraries() -> None:
    try:
        import onnx  # noqa: F401  (optional libraries: their own message does not say what to do)
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed; `pip install 'dpsweep[onnx]'` brings what an ONNX export needs") from None


def _graph(module: CropsToKeypoints, estimator: PoseEstimator, made: ModelClaim) -> bytes:
    """The serialised graph with its metadata."""
    import onnx

    height, width = estimator.input_px
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    with tempfile.TemporaryDirectory(prefix="dpsweep-onnx-") as folder, _quiet():
        file = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(
                module,
                (example,),
                str(file),
                input_names=[INPUT],
                output_names=[KEYPOINTS, SCORES],
                opset_version=OPSET,
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            first = str(error).strip().splitlines()[0]
            raise Refused(f"torch does not turn this network into ONNX ({first}); use the exported folder") from None
        graph = onnx.load(file)
    for name, text in _metadata(estimator, made).items():
        graph.metadata_props.add(key=name, value=text)
    onnx.checker.check_model(graph)
    content: bytes = graph.SerializeToString()
    return content


def _metadata(estimator: PoseEstimator, made: ModelClaim) -> dict[str, str]:
    return {
        CLAIM_KEY: json.dumps(made.model_dump(mode="json"), sort_keys=True),
        "claim_text": made.text(),
        "joints": json.dumps(list(estimator.joints)),
        "box_scale": json.dumps(estimator.box_scale),
        "weights_digest": made.weights_digest,
        "made_by": "dpsweep",
    }


def _checked(content: bytes, estimator: PoseEstimator) -> OnnxCheck:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    differences = {}
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        for kind, crops in (("noise", _noise(estimator.input_px)), ("people", _people(estimator.input_px))):
            wanted = estimator.of_crops(crops).points
            found = np.concatenate([_keypoints(session, crops[:1]), _keypoints(session, crops[1:])])
            differences[kind] = float(np.abs(found - wanted).max())
    except (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.NotImplemented, errors.RuntimeException) as error:
        first = str(error).strip().splitlines()[0]
        raise Refused(f"ONNX Runtime does not run this network's graph ({first}); nothing was written. Use the exported folder") from None
    check = OnnxCheck(opset=OPSET, random_px=differences["noise"], people_px=differences["people"])
    # `not <=`: a NaN is no equality
    if not max(differences.values()) <= TOLERANCE_PX:
        raise Refused(f"ONNX Runtime gives other keypoints than torch ({check.text()}); nothing was written. Use the exported folder")
    return check


def _keypoints(session: Any, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = session.run([KEYPOINTS], {INPUT: crops})[0]
    return found


def _noise(input_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Uniform bytes, the same at every call."""
    return np.random.Generator(np.random.Philox(0)).integers(0, 256, (CHECKED, *input_px, 3), dtype=np.uint8)


def _people(input_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Crops of synthetic people."""
    from PIL import Image

    from dpcore.data.synthetic import draw_record

    height, width = input_px
    drawn = [Image.fromarray(draw_record("public", seed=0, index=index).image) for index in range(CHECKED)]
    return np.stack([np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)) for picture in drawn])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's remarks about its own insides off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
