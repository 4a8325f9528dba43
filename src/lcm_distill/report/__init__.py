"""What people look at: progress, tables, charts and grids of images, sizes and durations in words."""
