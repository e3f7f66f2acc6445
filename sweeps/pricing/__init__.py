"""What a sweep costs: in privacy and in time."""
