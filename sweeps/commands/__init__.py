"""One file per group of subcommands. `add_parsers` declares the arguments, and the other functions do the work."""
