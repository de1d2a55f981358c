"""What a model is judged by, one task a file."""
