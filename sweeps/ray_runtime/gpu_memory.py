"""Limits a trial to its part of a GPU, and waits until this part is free.

Ray counts fractions of a GPU but does not enforce them. So a worker caps its own allocator at the trial's part. Memory may also outlive
a trial, in a reused or a killed worker. So a worker first returns what the last trial left, then waits for free memory. On a CPU
none of this runs.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Protocol

from dpcore.errors import Unavailable

ROOM_WITHIN_S = 60.0
"""How long to wait. The memory of a killed process is free after seconds. After a minute it belongs to another program."""
ROOM_SHARE = 0.9
"""Share of a trial's part that must be free. CUDA's contexts (about 500 MB per process) are outside of every cap and use some of it."""
ASK_EVERY_S = 0.5
GIB = 2**30


class GpuMemory(Protocol):
    """The memory of a worker's GPU."""

    def give_back(self) -> None:
        """Returns memory that no tensor of this process uses to the device."""

    def cap(self, fraction: float) -> None:
        """Lets this process take at most `fraction` of the device's memory."""

    def free_and_total(self) -> tuple[int, int]:
        """Free bytes and total bytes."""

    def held_by(self) -> str:
        """Text for a person: which processes hold how much memory, or why that is unknown."""


class CudaMemory:
    """The default device of torch, which is the one that Ray has made visible."""

    def give_back(self) -> None:
        """Runs the garbage collector first, because a trial's generator and its tensors refer to each other."""
        import torch

        gc.collect()
        torch.cuda.empty_cache()

    def cap(self, fraction: float) -> None:
        """Uses torch's allocator. Above the cap this trial runs out of memory, not another one."""
        import torch

        torch.cuda.set_per_process_memory_fraction(fraction)

    def free_and_total(self) -> tuple[int, int]:
        """As the GPU driver reports, for all processes."""
        import torch

        free, total = torch.cuda.mem_get_info()
        return int(free), int(total)

    def held_by(self) -> str:
        """As NVML reports, if its package is installed."""
        import torch

        return "; ".join(line.strip() for line in torch.cuda.list_gpu_processes().splitlines())


def make_room(
    memory: GpuMemory,
    gpus: float,
    *,
    within_s: float = ROOM_WITHIN_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Caps this process at a trial's part of its GPU and waits until that part is free.

    Args:
        memory: memory of the worker's GPU.
        gpus: GPUs that the trial requests from Ray. 0.5 is half of a GPU's memory; 1 or more is all of it.
        within_s: how long to wait.
        clock, sleep: time.

    Raises:
        Unavailable: it does not become free. The message names what holds it, if known.
    """
    fraction = min(1.0, gpus)
    memory.give_back()
    memory.cap(fraction)
    end = clock() + within_s
    while True:
        free, total = memory.free_and_total()
        wanted = ROOM_SHARE * fraction * total
        if free >= wanted:
            return
        if clock() >= end:
            raise Unavailable(
                f"a trial takes {fraction:g} of a GPU of {total / GIB:.1f} GiB, and after {within_s:g} s {free / GIB:.1f} GiB are free "
                f"where {wanted / GIB:.1f} GiB are needed (held by: {memory.held_by()}); end these processes, or lower --gpus-per-trial"
            )
        sleep(ASK_EVERY_S)
