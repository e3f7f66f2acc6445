"""Runs, resumes, prices and reports sweeps. The only place that knows Ray Tune, Optuna and MLflow."""

__distribution__ = "dpsweep"
