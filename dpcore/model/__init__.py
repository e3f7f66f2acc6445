"""Networks and what of them is frozen."""
