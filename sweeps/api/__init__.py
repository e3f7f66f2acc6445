"""What the command line does, as functions: `dpsweep` shows them to Python, the commands parse, call them and print.

They stand here and not in `dpsweep`, because the commands need them too, and `dpsweep` needs the commands: two packages that import
each other.
"""
