"""Parts of `hps-seg segment`: input images, output files, and workers."""
