"""Where tasks run: in this process, in processes, in the ranks of a launcher, or in Ray actors; results are equal."""
