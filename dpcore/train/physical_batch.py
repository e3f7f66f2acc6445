"""Chooses how many examples go through the network at once. The number is fixed before step 0.

Another number rounds the sums differently, and two sums under one noise would reveal their difference. So a resumed trial keeps the
number that it began with. A trial that runs out of memory continues as a new attempt with half of it
(`Attempt.physical_batch_size`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dpcore.config import RuntimeFlags
from dpcore.durable import read_json
from dpcore.errors import OutOfMemory, Unavailable
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.train.attempts import IDENTITY_FILE

WITHOUT_PROBE = 64
"""The number on a CPU. Larger batches are not faster there, and the engine itself takes few records of large maps at once."""
LARGEST_PROBED = 1024
SHARE_OF_FREE = 0.5
"""The other half is for the step's own vectors and for peaks of other trials."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Measures the memory of the passes of a private step.

    Attributes:
        growth_bytes: of a step over so many synthetic examples, at its peak.
        free_bytes: what this process can still have.
    """

    growth_bytes: Callable[[int], int]
    free_bytes: Callable[[], int]


def settled_batch_size(runtime: RuntimeFlags, folder: Path | None, probe: Probe) -> int:
    """The number that `runtime` names. For `auto` it is the number that the trial in `folder` began with, else a probed one.

    Args:
        runtime: runtime of the trial.
        folder: folder of the trial; None stores nothing.
        probe: measures steps of one and of two synthetic examples.

    Raises:
        Unavailable: not even one example fits into the device's memory.
    """
    if runtime.physical_batch_size != "auto":
        return runtime.physical_batch_size
    if folder is not None and (folder / IDENTITY_FILE).is_file():
        return int(read_json(folder / IDENTITY_FILE)["runtime"]["physical_batch_size"])
    return WITHOUT_PROBE if runtime.device == "cpu" else probed_batch_size(probe)


def probed_batch_size(probe: Probe) -> int:
    """The largest power of two whose step needs at most `SHARE_OF_FREE` of the free memory. No step is run that might not fit, but that
    of two examples: a larger one's need is one example's, and for each further example what the second one added.

    Raises:
        Unavailable: two examples do not fit.
    """
    try:
        probe.growth_bytes(1)  # the first pass also chooses the way to rows, and loads kernels
        one, two = probe.growth_bytes(1), probe.growth_bytes(2)
    except torch.OutOfMemoryError:
        raise Unavailable(
            "the device has no memory for two examples: run fewer trials on it at once, use a smaller network, or set "
            "runtime.physical_batch_size to 1"
        ) from None
    fits = 1 + int((SHARE_OF_FREE * probe.free_bytes() - one) / max(two - one, 1))
    return min(LARGEST_PROBED, 1 << (max(fits, 1).bit_length() - 1))


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


def probe_of(engine: GradientEngine, example: Tensor, *, joints: int, pairs: bool) -> Probe:
    """Rows of blank examples of the shape of `example` (1, ...), of pairs where the method has them, on a GPU."""

    def growth_bytes(count: int) -> int:
        inputs = example.new_zeros(count, *example.shape[1:])
        batch = Batch(inputs, inputs.new_zeros(count, joints, 2), inputs.new_ones(count, joints, dtype=torch.bool))
        torch.cuda.reset_peak_memory_stats(engine.device)
        before = torch.cuda.memory_allocated(engine.device)
        if pairs:
            engine.residual_rows_and_losses(batch, batch, 1.0)
        else:
            engine.rows(batch)
        return torch.cuda.max_memory_allocated(engine.device) - before

    def free_bytes() -> int:
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(engine.device)[0]

    return Probe(growth_bytes=growth_bytes, free_bytes=free_bytes)
