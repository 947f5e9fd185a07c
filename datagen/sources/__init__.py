"""Labelled real images: listing, scan, decoding, cache and splits."""
