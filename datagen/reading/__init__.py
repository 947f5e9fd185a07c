"""Shards as datasets for training."""
