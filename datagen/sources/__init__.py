"""Labelled real images as the user has them: listed, decoded whole, checked, cached and split."""
