"""How jobs bear with what they depend on: backoff, circuit breakers and rate limits."""
