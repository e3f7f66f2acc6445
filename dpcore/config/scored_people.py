"""Which validation people a score is counted over: those that a search sees, or those that decide afterwards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dpcore.config.parsing import Part


class ScoredPeople(Part):
    """One of the two parts of the validation people. They are divided once, by names of pictures alone (`dpcore.data.validation_parts`).

    Attributes:
        search_frac: about this share of the pictures belongs to the search.
        part: `search`: what settings are chosen on. `verdict`: what no search saw.
    """

    search_frac: float = Field(gt=0, lt=1)
    part: Literal["search", "verdict"]

    @property
    def text(self) -> str:
        """For a person."""
        return "people that the search saw" if self.part == "search" else "people that no search saw"
