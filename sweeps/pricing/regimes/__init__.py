"""What each way to account for a sweep charges, and in which words. One file each; `search_spaces.regimes` holds the table."""

from sweeps.pricing.regimes.promise import promise_of
from sweeps.pricing.regimes.regime import (
    NO_GUARANTEE,
    Basis,
    Group,
    Pricing,
    RegimePrice,
    basis_of,
    charges_under,
    headline,
    pricing_of,
    regime_prices,
)

__all__ = [
    "NO_GUARANTEE",
    "Basis",
    "Group",
    "Pricing",
    "RegimePrice",
    "basis_of",
    "charges_under",
    "headline",
    "pricing_of",
    "promise_of",
    "regime_prices",
]
