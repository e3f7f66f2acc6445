"""Where lines lie: in a database through SQLAlchemy, or in a file that is only looked at."""
