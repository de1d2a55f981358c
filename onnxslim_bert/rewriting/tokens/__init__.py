"""Which tokens of a row the later layers keep."""
