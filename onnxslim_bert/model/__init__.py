"""One encoder: its roles, what reads and what writes them, parts of it, canonical simplification."""
