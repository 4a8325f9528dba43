"""What a person looks at: progress, tables, grids of images."""
