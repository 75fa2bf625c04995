"""The command line `schoolbell`: what an operator does with jobs from a shell. No function imports it."""
