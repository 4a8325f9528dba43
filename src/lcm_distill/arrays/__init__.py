"""Zarr arrays on disk: their description, their shards, which are written whole, and their rows, read in any order."""
