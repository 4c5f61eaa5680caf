"""Hyperbolic radius of CLIP's embeddings: measurement, logging and plots."""
