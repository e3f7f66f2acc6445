"""Events on their way out: on disk before they are sent, sent in order."""
