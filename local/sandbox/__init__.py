"""A stand-in for Google's token endpoint, Calendar and Drive, over real HTTP, for the embedded stack and the tests.

It keeps files and events, and answers as Google does as far as Schoolbell's gateways go: the same paths, ids, error
bodies and quirks (a deleted event keeps its id; a file in the trash is still found). Under `/sandbox/` it can be told
what it holds and how to fail: see `local.sandbox.admin`.

Point `GOOGLE_CALENDAR_URL` at `<url>/calendar/v3`, `GOOGLE_DRIVE_URL` at `<url>/drive/v3` and `GOOGLE_TOKEN_URL` at
`<url>/token`. Any refresh token is somebody's account: the account is called as the token is.
"""
