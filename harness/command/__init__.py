"""What every command shares: its frame, options, tables, Ctrl-C, and output that may fail."""
