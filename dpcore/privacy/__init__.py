"""The private mechanism, its randomness, its accounting, its claim."""
