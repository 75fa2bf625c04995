"""What Lambda calls in every function: `schoolbell.entrypoint.handler` is the `handler` of the function's own `app.py`.

A function's files are the package `job` in what is built of it (functions/Makefile), and `functions.<domain>.<job>` in
the checkout. In both, `from .second import something` imports a module of the same folder.
"""

from schoolbell.jobs.invocation import handler_of

handler = handler_of("job.app")
