"""What the outputs of a network are made into: the layers of a map, for each task."""
