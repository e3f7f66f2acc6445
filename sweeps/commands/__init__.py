"""One file per group of subcommands: `add_parsers` declares its arguments, the functions do the work."""
