"""The template's times are the code's, and each leaves the next one room."""

from bouncer import timing
from bouncer.delivery.bounce import WINDOW
from bouncer.limiter import Pace
from tests.unit.template import FUNCTIONS, MAPPING, PARAMETERS, QUEUES, environment

SEND_TIMEOUT: int = FUNCTIONS["SendFunction"]["Timeout"]
INBOUND_TIMEOUT: int = FUNCTIONS["InboundFunction"]["Timeout"]
BOUNCE_QUEUE = QUEUES["BounceQueue"]


def test_the_worker_knows_how_often_the_queue_tries() -> None:
    tries = int(environment("SendFunction")["BOUNCE_QUEUE_MAX_RECEIVES"])
    assert tries == BOUNCE_QUEUE["RedrivePolicy"]["maxReceiveCount"]


def test_a_message_stays_hidden_for_six_times_the_workers_timeout() -> None:
    """docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html."""
    assert BOUNCE_QUEUE["VisibilityTimeout"] >= 6 * SEND_TIMEOUT


def test_a_whole_batch_fits_into_the_workers_timeout() -> None:
    pace = Pace(interval=PARAMETERS["SendIntervalSeconds"]["Default"])
    reserve = timing.RESERVE + timing.CALL
    assert pace.span(MAPPING["BatchSize"]) + reserve <= SEND_TIMEOUT


def test_two_workers_windows_fit_into_a_timeout_one_after_the_other() -> None:
    """MaximumConcurrency lets the second one wait while the first one sends."""
    pace = Pace(interval=PARAMETERS["SendIntervalSeconds"]["Default"])
    reserve = timing.RESERVE + timing.CALL
    workers = MAPPING["ScalingConfig"]["MaximumConcurrency"]
    assert workers * pace.span(MAPPING["BatchSize"]) + reserve <= SEND_TIMEOUT


def test_the_windows_of_six_stacks_that_share_a_pace_fit_into_a_timeout() -> None:
    """So each worker's window is granted when it asks, in order of asking."""
    pace = Pace(interval=PARAMETERS["SendIntervalSeconds"]["Default"])
    workers = 6 * MAPPING["ScalingConfig"]["MaximumConcurrency"]
    ahead = (workers - 1) * pace.span(MAPPING["BatchSize"])
    left = SEND_TIMEOUT - timing.RESERVE - timing.CALL
    assert ahead + pace.latest_start(MAPPING["BatchSize"]) <= left


def test_one_call_of_each_worker_fits_into_a_timeout_even_at_the_slowest_pace() -> None:
    pace = Pace(interval=PARAMETERS["SendIntervalSeconds"]["MaxValue"])
    reserve = timing.RESERVE + timing.CALL
    workers = MAPPING["ScalingConfig"]["MaximumConcurrency"]
    assert workers * pace.span(1) + reserve <= SEND_TIMEOUT


def test_an_inbound_mail_is_answered_within_sess_thirty_seconds() -> None:
    assert INBOUND_TIMEOUT < timing.SES_WAITS == 30


def test_the_templates_times_are_those_that_the_code_counts_on() -> None:
    assert INBOUND_TIMEOUT == timing.INBOUND_TIMEOUT
    assert SEND_TIMEOUT == timing.SEND_TIMEOUT
    assert BOUNCE_QUEUE["VisibilityTimeout"] == timing.VISIBILITY
    assert PARAMETERS["WaitBudgetSeconds"]["MaxValue"] == timing.LONGEST_WAIT_BUDGET
    assert PARAMETERS["WindowMarginSeconds"]["MinValue"] == timing.LEAST_WINDOW_MARGIN


def test_the_longest_wait_for_a_slot_leaves_time_for_the_answer() -> None:
    reserve = timing.RESERVE + timing.CALL
    assert PARAMETERS["WaitBudgetSeconds"]["MaxValue"] + reserve < INBOUND_TIMEOUT


def test_lambda_takes_no_concurrency_below_two() -> None:
    """docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html: 2 to 1000."""
    assert MAPPING["ScalingConfig"]["MaximumConcurrency"] >= 2


def test_only_what_failed_goes_back_to_the_queue() -> None:
    assert MAPPING["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_the_queue_outlives_sess_window() -> None:
    """So that the worker can note what it gives up."""
    assert BOUNCE_QUEUE["MessageRetentionPeriod"] > WINDOW.total_seconds()


def test_the_ledger_outlives_the_queue() -> None:
    days = PARAMETERS["LedgerRetentionDays"]["MinValue"]
    assert days * 86_400 > BOUNCE_QUEUE["MessageRetentionPeriod"]
