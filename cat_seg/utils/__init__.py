"""Shared helpers for files, processes, progress bars, paths and random state."""
