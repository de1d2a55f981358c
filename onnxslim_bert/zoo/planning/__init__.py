"""A zoo file, read, checked and spelled out: one entry for each job."""
