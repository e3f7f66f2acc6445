"""Maps of several sizes in one tensor, and what is fixed about them before training: whitening, a prior of positions."""
