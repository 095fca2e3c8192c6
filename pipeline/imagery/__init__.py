"""Rasters to cube: everything that is read from imagery."""
