"""What a written model says of itself, and whether that holds; documents for pipelines."""
