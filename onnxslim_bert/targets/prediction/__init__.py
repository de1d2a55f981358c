"""What providers that cannot execute here would take of a model, by their published rules."""
