"""A sweep while it runs, on the terminal of its driver."""
