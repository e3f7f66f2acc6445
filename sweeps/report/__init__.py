"""Builds what people read: tables, figures, picture sheets and status."""
