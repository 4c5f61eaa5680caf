"""Looking into a model and its training: measurement, logging and plots."""
