"""A package of somebody else, which adds to dpsweep without a line in it. `test_outside` installs it into a folder of its own."""
