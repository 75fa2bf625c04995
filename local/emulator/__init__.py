"""The AWS emulator: ministack, brought closer to AWS where these jobs depend on the difference.

`process` starts it and talks to it. All other modules run inside it, in an environment (`.venv/emulator`) that has
ministack and nothing of this project's: they import nothing of this project but each other. There is one for each
service, whose `install` puts its functions in the place of ministack's own; what a function's docstring says is what
AWS does. What they replace belongs to the one version of ministack that `requirements/emulator.txt` pins.
"""
