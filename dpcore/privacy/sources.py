"""What the mechanism reads: examples by index, records with their public views, and the streams that draw them.

The trainer builds these objects. The public side of a trial sees only `ExampleSource`s without a private pixel in them, so
no mistake in the mechanism could put one into a public term, a subspace or a control.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dpcore.privacy.per_example import Batch
from dpcore.privacy.randomness import Indices, PrivateStreams, PublicStreams, RandomStream
from dpcore.privacy.subspace import SubspaceBasis
from dpcore.privacy.units import Units

Draw = Any
"""The geometry of one step's examples, opaque to the mechanism but for `draw[rows]` (a slice, or places) and None."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The geometry of all copies of a step's examples: E examples, the draws of the first copies of all, then of the second ones.

    Every copy has a row of the draw that depends on its place alone, so the physical batch size moves none.
    """

    examples: Indices
    copies: int
    draw: Draw

    def of(self, some: slice) -> tuple[Indices, Draw]:
        """The examples of a physical batch, each as often as it has copies (first copies first), and their draws."""
        if self.copies == 1:
            return self.examples[some], None if self.draw is None else self.draw[some]
        places = np.arange(len(self.examples))[some]
        rows = np.concatenate([copy * len(self.examples) + places for copy in range(self.copies)])
        return np.tile(self.examples[some], self.copies), None if self.draw is None else self.draw[rows]


class ExampleSource(Protocol):
    """Examples by index: a PUBLIC dataset, or the stored public views of the private one.

    Augmentation: once a step the mechanism calls `draw_geometry` for all examples of the step, then slices the draw
    together with the indices into physical batches, so the physical batch size moves no draw. A source without
    augmentation returns None from `draw_geometry`; `batch` with None gives the examples as they are.
    """

    def __len__(self) -> int:
        """How many examples there are."""

    def draw_geometry(self, stream: RandomStream, count: int) -> Draw:
        """The random geometry of `count` examples, from `stream` alone; an object that can be sliced, or None."""

    def batch(self, indices: Indices, draw: Draw) -> Batch:
        """The examples (B,) int64, transformed by the B draws, or untouched for None."""


@runtime_checkable
class RecordSource(ExampleSource, Protocol):
    """The private dataset: `batch` gives private pixels, `view_batch` the public views of the same records.

    A pair shares one draw: `view_batch` applies it to the *stored bytes* of ψ(x), which were made from the unaugmented
    record; it must not touch private pixels.
    """

    def view_batch(self, indices: Indices, draw: Draw) -> Batch:
        """ψ(x) of the same records under the same draw, with the same labels."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a trial may read. `private` is None for a control: then there is nothing private to touch.

    Args:
        private: The private records. Needed unless the private part is off.
        views: The stored public views behind ḡ_pub (and a subspace of source public_view).
        public: The PUBLIC dataset behind a subspace of source public; with views where the subspace is of residuals.
        private_units: Which private records make up a unit of privacy; None: each is one.
        view_units: The same for `views`, so that the public term weighs units as the private sum does.
        start_basis: The subspace at the weights of the start, where trials share one; None: it is fitted in step 0.
    """

    private: RecordSource | None = None
    views: ExampleSource | None = None
    public: ExampleSource | RecordSource | None = None
    private_units: Units | None = None
    view_units: Units | None = None
    start_basis: SubspaceBasis | None = None


@dataclass(frozen=True, kw_only=True)
class Randomness:
    """The secret streams (None for a control) and the public ones."""

    private: PrivateStreams | None
    public: PublicStreams
