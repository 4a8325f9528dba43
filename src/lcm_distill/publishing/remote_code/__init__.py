"""Code that travels with a published model: each module becomes one file, with `publishing.standalone`."""
