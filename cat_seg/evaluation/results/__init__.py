"""Results of runs: reading them, and making tables and charts."""
