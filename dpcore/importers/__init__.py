"""Turns other people's annotated pictures into datasets."""
