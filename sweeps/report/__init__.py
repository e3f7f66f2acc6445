"""What people read: tables, figures, sheets, status."""
