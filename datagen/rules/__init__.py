"""One file a rule that draws labelled images."""
