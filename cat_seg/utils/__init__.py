"""Files, processes, progress, paths and random state: what every other room builds on."""
