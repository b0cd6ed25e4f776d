"""Times, margins and time-outs: who waits how long for whom. All in seconds.

An inbound invocation, and what has to fit into it:

    0 ───────────────────────────────────────────────► INBOUND_TIMEOUT ──► SES_WAITS
    │ look up, claim, wait for a slot │    CALL      │ RESERVE │
                                      │              └─ the end: log, or keep the event
                                      └─ the last moment at which a call may start

What one part takes for granted of another is asserted at the end; what the template says of
these numbers is compared with them by tests/unit/test_template_times.py.
"""

# --- One try at DynamoDB, S3, SQS or AppConfig -----------------------------------------------

CONNECT = 0.75
READ = 2.0
ATTEMPT = CONNECT + READ
"""The longest that one try takes."""
ATTEMPTS = 3
"""As many tries as the deadline lets the SDK make."""

STALE = 5.0
"""A connection that was idle for so long is not used again: AWS's ends close theirs later."""
STOOD_STILL = 0.5
"""Clocks that differ by so much: the process was frozen between two looks at them."""

# --- One SendBounce call; the SDK never repeats it -------------------------------------------

SES_CONNECT = 1.0
SES_READ = 7.0
"""SES answers in well under a second."""
SES_CALL = SES_CONNECT + SES_READ
"""The longest that a call takes from its slot to its answer, or to giving that up."""
CALL = SES_CALL + ATTEMPT
"""With the note of what became of it."""
LEAD = 0.25
"""The connection is made ready so long before the turn."""
LEAST_WINDOW_MARGIN = 60.0
"""The template takes no less: a call is answered inside SES's 24 hours."""

# --- Invocations -----------------------------------------------------------------------------

SES_WAITS = 30.0
"""For a RequestResponse action."""
INBOUND_TIMEOUT = 25.0
SEND_TIMEOUT = 150.0
"""Two workers a stack wait for each other's windows: so long lets six stacks share a pace."""
RESERVE = 3.0
"""What is left of a function's time when everything else has to be over: the event is kept."""
LONGEST_WAIT_BUDGET = 10.0
"""The template takes no more."""

# --- The ledger and the queue ----------------------------------------------------------------

LEASE_GRACE = 2.0
"""A lease outlives its holder by this, so that clocks need not agree to the second."""
LEDGER_FIRST = 2.0
"""A message that is queued while its claim is held is not seen before the ledger says so."""
PATIENCE = 5.0
"""A worker without a slot waits so long before it asks again; to hand its batch back at once
would only fetch the next one, and wear every message's number of receives out."""
COUNT_HOLDS = 5.0
"""So long a container believes a length of the queue."""
VISIBILITY = 900.0
"""So long a message that a worker has is hidden from the others."""
LONGEST_DELAY = 900.0
"""SQS takes no more."""

# --- What has to hold ------------------------------------------------------------------------

assert ATTEMPT < RESERVE, "one try at keeping the event fits into what is kept for it"
assert LEAD < SES_CONNECT
assert LEAD < STALE, "a connection that was made ready is still so at the turn"
# The window is looked at, then a connection is opened, the turn comes, and the call is answered.
assert SES_CALL + LEAD + SES_CALL < LEAST_WINDOW_MARGIN
assert SES_CALL < CALL, "the end of a call can be noted"
assert RESERVE < CALL < INBOUND_TIMEOUT - RESERVE
assert LONGEST_WAIT_BUDGET + CALL + RESERVE < INBOUND_TIMEOUT, "who waited longest can still call"
assert INBOUND_TIMEOUT < SES_WAITS
assert CALL + RESERVE + PATIENCE < SEND_TIMEOUT, "a worker waits for a slot at least once"
# docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
assert VISIBILITY >= 6 * SEND_TIMEOUT
assert LEASE_GRACE < RESERVE, "a lease that ran out is never its holder's, who has ended before"
assert SEND_TIMEOUT + LEASE_GRACE < LONGEST_DELAY, "a message can wait for any lease to run out"
