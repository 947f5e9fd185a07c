"""The verbs on the command line; one file a verb."""
