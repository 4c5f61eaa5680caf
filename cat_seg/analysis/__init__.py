"""The hyperbolic radius of CLIP's embeddings: measuring, logging and drawing it."""
