"""The command line: help, checks before a run, progress, the table, the end of a sweep."""
