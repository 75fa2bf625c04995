"""The acts of the demo, a module each: a `TITLE`, and `perform`, which does it, tells it and checks it."""
