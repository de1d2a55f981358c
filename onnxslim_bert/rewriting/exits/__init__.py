"""Exits: rows of a batch that have their answer before the last layer."""
