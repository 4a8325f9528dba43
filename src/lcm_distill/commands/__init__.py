"""What the commands share: their options, the run they work on, how stages run, and what is shown."""
