"""What jobs of the tutoring domain share: lessons, planned messages, waiting lists."""
