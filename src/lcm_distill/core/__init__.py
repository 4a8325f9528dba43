"""What everything may use: errors, devices, addressed random numbers, child processes."""
