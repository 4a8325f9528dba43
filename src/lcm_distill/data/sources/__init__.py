"""The data sets that can be read."""
