"""What the health endpoints and `/metrics` tell: the state of queues, dead letters and runs at this moment."""
