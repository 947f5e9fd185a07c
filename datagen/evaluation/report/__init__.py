"""The findings as one HTML page and as JSON."""
