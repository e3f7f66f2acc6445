"""What may be tried, per ε: schema, loader, presets. No torch, no Optuna."""

__distribution__ = "dpsweep"
