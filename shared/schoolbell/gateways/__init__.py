"""Gateways to outside services: HTTPS, errors told apart, each call behind a circuit breaker and a rate limit."""
