"""The first command that a person types: a space for their data."""
