"""One file a family, and the objectives, layers and augmentation they share."""
