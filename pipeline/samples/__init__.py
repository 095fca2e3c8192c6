"""Cube and labels to training samples."""
