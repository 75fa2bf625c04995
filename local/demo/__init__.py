"""A term of a tutoring business at work on the embedded stack: what `make demo` shows, and checks."""
