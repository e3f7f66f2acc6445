"""Predicts from PUBLIC data alone what private steps can gain."""
