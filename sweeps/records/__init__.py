"""What a sweep is and what came out of it."""
