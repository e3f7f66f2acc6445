"""Maps of several sizes in one tensor. Beside it what is fixed before training: whitening, a prior of positions."""
