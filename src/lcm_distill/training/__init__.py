"""Training of teachers and students: the loop, what is trained, and what a training needs of its machines."""
