"""What goes wrong that an operator should be told in words."""


class NoSuchThing(Exception):
    """There is no such job, run, dead letter or page, or no longer. The text says which."""


class Refusal(Exception):
    """What was asked for can't be done; the text says why, in a line."""
