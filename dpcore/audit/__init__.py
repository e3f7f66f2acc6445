"""Attacks our own claims: empirical lower bounds of ε from synthetic canaries. They cost no budget."""
