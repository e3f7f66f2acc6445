"""From a network's outputs on one or several views of a crop to keypoints."""
