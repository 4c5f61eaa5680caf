"""The parts of `hps-seg analyse`: reading a run, its sections, and the page that shows them."""
