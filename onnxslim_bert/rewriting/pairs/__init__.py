"""Pairs of texts: layers that read question and passage apart, and the two files of such a model."""
