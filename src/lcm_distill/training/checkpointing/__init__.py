"""What a checkpoint's folder holds: tensors, the index of where they lie, and hashes; none of it is ever executed."""
