"""Per-example gradients: what a batch is, and the ways from a network to one row an example."""

ENGINE_VERSION = 6
"""Raised whenever rows or their sum round otherwise than before. A checkpoint from before it continues as a new attempt, under
fresh noise."""
