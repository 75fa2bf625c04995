"""A stand-in for the outside services, over real HTTP, for the embedded stack and the tests.

**Google**: the token endpoint, Calendar and Drive.

It keeps files and events, and answers as Google does as far as Schoolbell's gateways go: the same paths, ids, error
bodies and quirks (a deleted event keeps its id; a file in the trash is still found). Under `/sandbox/` it can be told
what it holds and how to fail: see `local.sandbox.admin`.

Point `GOOGLE_CALENDAR_URL` at `<url>/calendar/v3`, `GOOGLE_DRIVE_URL` at `<url>/drive/v3` and `GOOGLE_TOKEN_URL` at
`<url>/token`. Any refresh token is somebody's account: the account is called as the token is.

**SendGrid, Twilio, Firebase Cloud Messaging, PagerDuty, Slack**: as far as sending goes. They are as strict about a
request as the real ones, and record what they take: `GET /sandbox/messages?service=sendgrid`. They are at
`<url>/sendgrid`, `/twilio`, `/fcm`, `/pagerduty`, and `/slack/services/T…/B…/…`. Any key of the right form works until
it is revoked; only Firebase's service accounts are made here.
"""
