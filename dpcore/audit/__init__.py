"""Attacks on our own claims: empirical lower bounds of ε, from synthetic canaries alone, so they cost no budget."""
