"""One network with its settings per file."""
