"""Sends sweeps to clusters and examines them."""
