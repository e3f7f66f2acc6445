"""Sweeps seen from outside: all of a storage in a list, two side by side, what one said."""
