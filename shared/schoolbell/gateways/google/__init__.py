"""Gateways to Google Calendar and Google Drive: plain HTTPS, with tokens from google-auth.

Google's own client (google-api-python-client) takes over a second to import and build; these are two small classes.
Nothing here imports google-auth or urllib3 before the first call.
"""
