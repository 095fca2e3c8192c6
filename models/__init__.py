"""Tensors: networks, training tasks, saliency, bundles. Knows no imagery file and no CRS."""

import os

# Tensors of megabytes come in pages of two megabytes instead of thousands of small ones, each of which costs a fault
# whenever a tensor is made: a third of a U-Net's time on a CPU. torch asks for it once, before its first large tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
