"""What a person sees on a terminal: words, tables, progress. Knows nothing of sweeps."""
