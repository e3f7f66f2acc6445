"""What the command line does, as functions. `dpsweep` exports them to Python. The commands parse arguments, call them and print.

The functions are here and not in `dpsweep`, because the commands need them too and `dpsweep` needs the commands. Otherwise the two packages
would import each other.
"""
