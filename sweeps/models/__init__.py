"""Trains from best.yaml, and scores trained models and predictions."""
