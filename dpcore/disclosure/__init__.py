"""Attacks public views and measures what an attacker recovers, on PUBLIC images only."""
