"""Objectives of students and teachers; those of students share the interface of `interface.Objective`."""
