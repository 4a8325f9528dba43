"""File formats that others write, read strictly and up to a limit: images, text, tables, tar archives."""
