"""What MLflow hears of a sweep, and what it must not hear."""
