"""Command-line tools that belong to the repository."""
