"""AWS on this machine: ministack, extended by what it lacks for receiving mail with SES.

It has SendBounce, receipt rules in templates, a rule set that runs for each mail, and an
SMTP server in front. docs/local-aws.md says how near it is to the real one.
"""
