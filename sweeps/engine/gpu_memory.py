"""A trial's part of a GPU: capped in torch, and free before the trial starts.

Ray counts fractions of a GPU and keeps nobody to theirs. So a worker caps its own allocator at the trial's part, and because
memory may outlive a trial (in a reused worker, or a killed one) it gives back what the last one left, then waits for room.
On a CPU nothing of this runs.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Protocol

from dpcore.errors import Unavailable

ROOM_WITHIN_S = 60.0
"""A killed process's memory is back after seconds; more than a minute is somebody else's."""
ROOM_SHARE = 0.9
"""Of a trial's part that must be free: CUDA's own contexts, some 500 MB a process, lie beside every cap and take from all parts."""
ASK_EVERY_S = 0.5
GIB = 2**30


class GpuMemory(Protocol):
    """The memory of a worker's GPU."""

    def give_back(self) -> None:
        """Returns what no tensor of this process holds any more to the device."""

    def cap(self, fraction: float) -> None:
        """Lets this process take at most `fraction` of the device's memory."""

    def free_and_total(self) -> tuple[int, int]:
        """Bytes that are free, and all there are."""

    def held_by(self) -> str:
        """Which processes hold how much, for a person; or why that is not known."""


class CudaMemory:
    """The device that torch takes by default: the one that Ray has made visible."""

    def give_back(self) -> None:
        """Collects first: a trial's generator and its tensors refer to each other."""
        import torch

        gc.collect()
        torch.cuda.empty_cache()

    def cap(self, fraction: float) -> None:
        """By torch's allocator: beyond it a trial runs out of memory, and not its neighbour."""
        import torch

        torch.cuda.set_per_process_memory_fraction(fraction)

    def free_and_total(self) -> tuple[int, int]:
        """As the driver says: of all processes."""
        import torch

        free, total = torch.cuda.mem_get_info()
        return int(free), int(total)

    def held_by(self) -> str:
        """As NVML says, where its package is installed."""
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
        memory: of the worker's GPU.
        gpus: what the trial asks of Ray: 0.5 is half a GPU's memory, from 1 on all of it.
        within_s: how long to wait.
        clock, sleep: time.

    Raises:
        Unavailable: it does not become free; names what holds it, where that can be known.
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
                f"where {wanted / GIB:.1f} GiB are needed (held by: {memory.held_by()}); end what holds them, or lower --gpus-per-trial"
            )
        sleep(ASK_EVERY_S)
