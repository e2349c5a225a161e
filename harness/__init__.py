"""The program: command line, serving engine, executors, metrics, results and reports."""
