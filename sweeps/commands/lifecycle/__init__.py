"""Commands on sweeps that exist: looking at them, and changing what they do."""
