"""Two runs of a zoo, compared."""
