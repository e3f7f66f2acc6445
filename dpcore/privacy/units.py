"""Units of privacy: which examples belong to one, which of them a step takes, and how those become one row.

A step draws units, not examples. Of a drawn unit at most `examples_per_unit` examples take part, chosen from that unit alone,
and the unit's row is the mean of theirs. The mean is complete before the one clip, also where a unit lies in several physical
batches: so a unit is one row of norm at most C whatever it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpcore.devices import on_device
from dpcore.errors import BadInput
from dpcore.privacy.clipping import Count
from dpcore.privacy.randomness import Indices, RandomStream


@dataclass(frozen=True)
class Units:
    """The units of a dataset, in the order in which they first appear in it.

    Args:
        names: (U,) str.
        members: (N,) the rows of the dataset, unit by unit, ascending within one.
        starts: (U + 1,) where each unit's members begin, and N.
    """

    names: NDArray[np.str_]
    members: Indices
    starts: Indices

    @classmethod
    def of_ids(cls, ids: NDArray[np.str_]) -> Self:
        """Rows (N,) with equal ids are one unit. With N different ids, unit i is row i."""
        names, first, inverse, counts = np.unique(ids, return_index=True, return_inverse=True, return_counts=True)
        order = np.argsort(first, kind="stable")
        place = np.argsort(order, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts[order])])
        return cls(names[order], np.argsort(place[inverse], kind="stable").astype(np.int64), starts.astype(np.int64))

    @classmethod
    def single(cls, count: int) -> Self:
        """Each of `count` examples a unit of its own."""
        rows = np.arange(count, dtype=np.int64)
        return cls(rows.astype(np.str_), rows, np.arange(count + 1, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.names)

    def choose(self, drawn: Indices, cap: int, stream_of: Callable[[str], RandomStream]) -> Chosen:
        """The examples of the `drawn` units that take part in a step.

        Guarantees: what is chosen of a unit depends on that unit and its own stream alone; `cap` examples, uniformly without
        replacement, of a unit that has more, all of any other.

        Args:
            drawn: Units, ascending or not; each once.
            cap: Most examples of one unit.
            stream_of: The stream of a unit by its name, for this step; asked only where there is something to choose.
        """
        parts = []
        for unit in drawn:
            own = self.members[self.starts[unit] : self.starts[unit + 1]]
            if len(own) > cap:
                order = np.argsort(stream_of(str(self.names[unit])).uniform(len(own)), kind="stable")
                own = own[np.sort(order[:cap])]
            parts.append(own)
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        examples = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        return Chosen(drawn, examples, sizes)


@dataclass(frozen=True)
class Chosen:
    """The examples of one step: (E,) rows of the dataset, those of the n `drawn` units one after the other, `sizes` (n,) each."""

    drawn: Indices
    examples: Indices
    sizes: Indices

    @property
    def is_single(self) -> bool:
        """Whether every unit takes part with one example, so that example rows are unit rows."""
        return len(self.examples) == len(self.drawn)

    @property
    def unit_of(self) -> Indices:
        """(E,) the place of each example's unit among the drawn ones, ascending."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def slices(self, size: int) -> Iterator[slice]:
        """Physical batches of at most `size` examples."""
        for start in range(0, len(self.examples), size):
            yield slice(start, min(start + size, len(self.examples)))

    def weights(self, some: slice, *, device: torch.device) -> Tensor | None:
        """(b,) float32, one over the size of each example's unit: a weighted sum is the sum of units' means. None: all are 1."""
        if self.is_single:
            return None
        return on_device(torch.from_numpy(1.0 / self.sizes[self.unit_of[some]]), device).to(torch.float32)


class UnitRows:
    """Merges example rows, batch by batch, into one row a unit; what a batch leaves unfinished waits for the next.

    Guarantees: a row that leaves is the mean over all chosen examples of its unit, in float32. An example whose row holds inf
    or nan counts as zeros in the mean, so it cannot undo its neighbours; `nonfinite` says how many did. Sealed.
    """

    def __init__(self, chosen: Chosen) -> None:
        self._chosen = chosen
        self._unit_of = chosen.unit_of
        self._waiting: Tensor | None = None
        self.nonfinite: Count = 0

    def complete(self, rows: Tensor, some: slice) -> Tensor:
        """The rows (u, P) of the units that end within `some`.

        Args:
            rows: (b, P) of the examples of `some`; the slices of `Chosen.slices`, in order.

        Raises:
            BadInput: another number of rows than examples.
        """
        if len(rows) != some.stop - some.start:
            raise BadInput(f"{some.stop - some.start} examples need as many rows, given {len(rows)}")
        if self._chosen.is_single:
            return rows
        finite = torch.isfinite(rows).all(dim=1)
        self.nonfinite = self.nonfinite + (~finite).sum()
        rows = torch.where(finite[:, None], rows, torch.zeros((), dtype=rows.dtype, device=rows.device))
        units, counts = np.unique(self._unit_of[some], return_counts=True)
        # a loop of sums and no index_add: the order of its additions is not fixed on a GPU, and a replay must meet the same sum
        sums = [part.sum(dim=0) for part in torch.split(rows, counts.tolist())]
        if self._waiting is not None:
            sums[0] = self._waiting + sums[0]
        goes_on = some.stop < len(self._unit_of) and self._unit_of[some.stop] == units[-1]
        self._waiting = sums.pop() if goes_on else None
        if not sums:
            return rows[:0]
        return torch.stack(sums) / on_device(torch.from_numpy(self._chosen.sizes[units[: len(sums)], None]), rows.device).to(torch.float32)
