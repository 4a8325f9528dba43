"""`shapes`, the stand-in that ships: scenes, data set, feature network and caption accuracy."""
