"""Writer and reader of each shard format."""
