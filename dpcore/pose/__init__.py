"""Poses: skeletons, coordinate classification, loss, PCKh."""
