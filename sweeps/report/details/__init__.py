"""What a report says beyond its tables: computed once, for Markdown, HTML and CSV alike."""
