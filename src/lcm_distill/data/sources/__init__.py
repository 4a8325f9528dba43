"""Data sets: their interface, and one module for each kind."""
