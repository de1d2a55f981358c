"""One job: load, make, prove, publish."""
