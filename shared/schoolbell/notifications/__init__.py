"""Notifications: emails, text messages and push messages, each a row that is delivered once."""
