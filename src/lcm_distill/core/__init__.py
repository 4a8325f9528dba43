"""Helpers that every module may use: errors, log files, devices, random numbers, hashes, child processes."""
