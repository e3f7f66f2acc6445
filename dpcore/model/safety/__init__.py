"""Makes a network safe for per-example gradients, and refuses what it cannot make safe."""
