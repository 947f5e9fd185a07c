"""The one loop that trains generators."""
