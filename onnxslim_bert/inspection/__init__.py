"""What a model file is, and what a pass could do with it."""
