"""Computes what a sweep costs, in privacy and in time."""
