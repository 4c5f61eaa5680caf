"""The `hps-seg` command: one module per sub-command, each with `main(argv)`."""
