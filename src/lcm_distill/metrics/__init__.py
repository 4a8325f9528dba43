"""From features to figures."""
