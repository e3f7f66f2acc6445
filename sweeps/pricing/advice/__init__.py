"""What can pay, before anything is spent."""
