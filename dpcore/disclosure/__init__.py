"""The public view under attack: what an attacker recovers from it, measured on PUBLIC images alone."""
