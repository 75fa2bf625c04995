"""What Lambda calls in every function: `schoolbell.entrypoint.handler` is the `handler` of the function's own `app`."""

from schoolbell.jobs.invocation import handler_of

handler = handler_of("app")
