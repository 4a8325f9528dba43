"""What a run is: tasks, their manifest, where they run, and the folder they leave behind."""
