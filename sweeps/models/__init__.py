"""From best.yaml to weights, and from weights to scores."""
