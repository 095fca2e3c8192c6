"""Block results to files that a GIS opens."""
