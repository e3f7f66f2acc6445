"""What runs next, on Ray Tune."""
