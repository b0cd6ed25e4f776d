"""Bounces for mail received with Amazon SES. See docs/ for the design."""
