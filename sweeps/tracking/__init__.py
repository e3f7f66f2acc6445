"""Reports a sweep to MLflow, and keeps back what MLflow must not receive."""
