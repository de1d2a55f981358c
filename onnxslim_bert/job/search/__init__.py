"""Search for the recipe that reaches a target at the least measured damage."""
