"""The memory bank of PatchCore: coresets, nearest-neighbour search, and the actor around them."""
