"""Reads keypoints off people's own pictures with a trained model."""
