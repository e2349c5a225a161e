"""What every command shares: options, one frame, tables, output that ends early, Ctrl-C."""
