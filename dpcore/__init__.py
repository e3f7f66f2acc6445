"""One trial: data, model, privacy, training. Knows nothing of Ray, Optuna or MLflow."""

__distribution__ = "dpsweep"
