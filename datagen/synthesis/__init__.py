"""Mass production of labelled images into shards."""
