"""Chooses how many examples go through the network at once. The number is fixed before step 0.

Another number rounds the sums differently, and two sums under one noise would reveal their difference. So a resumed trial keeps the
number that it began with. A trial that runs out of memory continues as a new attempt with half of it
(`Attempt.physical_batch_size`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dpcore.config import RuntimeFlags
from dpcore.durable import read_json
from dpcore.errors import OutOfMemory, Unavailable
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.train.attempts import IDENTITY_FILE

WITHOUT_PROBE = 64
"""The number on a CPU. Memory does not limit it there, and larger batches are not faster."""
LARGEST_PROBED = 1024


def settled_batch_size(runtime: RuntimeFlags, folder: Path | None, probe: Callable[[int], None]) -> int:
    """The number that `runtime` names. For `auto` it is the number that the trial in `folder` began with, else a probed one.

    Args:
        runtime: runtime of the trial.
        folder: folder of the trial; None stores nothing.
        probe: runs the passes of a private step with this many synthetic examples.

    Raises:
        Unavailable: not even one example fits into the device's memory.
    """
    if runtime.physical_batch_size != "auto":
        return runtime.physical_batch_size
    if folder is not None and (folder / IDENTITY_FILE).is_file():
        return int(read_json(folder / IDENTITY_FILE)["runtime"]["physical_batch_size"])
    return WITHOUT_PROBE if runtime.device == "cpu" else probed_batch_size(probe)


def probed_batch_size(probe: Callable[[int], None]) -> int:
    """Half of the largest power of two that fits. The other half is for the step's own vectors and for peaks of other trials.

    Raises:
        Unavailable: not even one example fits.
    """
    size = LARGEST_PROBED
    while size:
        try:
            probe(size)
            return max(1, size // 2)
        except torch.OutOfMemoryError:
            size //= 2
            torch.cuda.empty_cache()
    raise Unavailable("the device has no memory for one example: run fewer trials on it at once, or use a smaller network")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: a device's, Python's or numpy's, or torch's on a CPU, which has no exception of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)


def out_of_memory(what: str, physical_batch_size: int) -> OutOfMemory:
    """The error for `what` did not fit."""
    return OutOfMemory(
        f"{what} does not fit into the free memory with {physical_batch_size} examples at once; "
        "set runtime.physical_batch_size lower, or run fewer trials on the machine",
        physical_batch_size=physical_batch_size,
    )


def probe_of(engine: GradientEngine, example: Tensor, *, joints: int, pairs: bool) -> Callable[[int], None]:
    """Per-example gradients of blank examples of the shape of `example` (1, ...), of pairs where the method has them."""

    def probe(count: int) -> None:
        inputs = example.new_zeros(count, *example.shape[1:])
        batch = Batch(inputs, inputs.new_zeros(count, joints, 2), inputs.new_ones(count, joints, dtype=torch.bool))
        if pairs:
            engine.residual_rows_and_losses(batch, batch, 1.0)
        else:
            engine.rows(batch)

    return probe
