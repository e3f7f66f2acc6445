"""Stages, steps, evaluation, checkpoints of one trial."""
