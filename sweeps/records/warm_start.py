"""What a sweep takes from an earlier sweep, as its spec stores it."""

from __future__ import annotations

from dpcore.config import Part
from search_spaces.space import Draw


class WarmStart(Part):
    """What a sweep takes from an earlier sweep. It is fixed at the beginning, so a resume does not need the earlier sweep.

    Attributes:
        sweeps: the earlier sweep, followed by the sweeps that it began with itself.
        is_private: whether the settings were chosen on private data.
        draws: ε of the new sweep → settings that its study tries first.
    """

    sweeps: tuple[str, ...]
    is_private: bool
    draws: dict[float, tuple[Draw, ...]]

    def text(self, name: str) -> str:
        """What the price of the sweep `name` does not include."""
        earlier = ", ".join(self.sweeps)
        if not self.is_private:
            return f"begun with settings of {earlier}, which were chosen on PUBLIC data at no cost"
        return (
            f"begun with settings that {earlier} chose on private results. The price of {name} covers only its own trials, not the "
            f"earlier choice; the ledger holds both (dpsweep ledger {name})"
        )
