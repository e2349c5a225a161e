"""What a person types and sees first: help, checks before a run, the table, the end of a sweep."""
