"""Writes the files of a report: one HTML page that needs nothing else, Markdown, figures and tables."""
