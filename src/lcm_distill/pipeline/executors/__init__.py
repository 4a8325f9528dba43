"""Where tasks run: here, in a process a GPU, in the ranks of a launcher, or in Ray actors. The bytes are the same."""
