"""A job of each kind, as CONTRIBUTING.md says to add one: `tests/template/test_scratch_jobs.py` adds them to a copy."""
