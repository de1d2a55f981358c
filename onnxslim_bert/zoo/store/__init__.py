"""What a run keeps: results, cached arrays, and how far it is."""
