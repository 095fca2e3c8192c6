"""Tensors: networks, training tasks, saliency, bundles. Knows no imagery file and no CRS."""
