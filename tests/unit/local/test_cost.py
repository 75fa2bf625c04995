"""The month's cost, as it is worked out from the templates."""

from local.cost import FEW, MESSAGES, PAGE, PRICES, SES, Bundle, Function, lines_of, page, read_bundle, units


def bundle_of(*functions: Function, watched: int = 0, secrets: int = 0, critical: tuple[str, ...] = ()) -> Bundle:
    return Bundle(functions, watched, keys=0, critical=critical, circuits=0, dashboards=0, secrets=secrets)


def test_figures_are_of_queues_of_the_templates() -> None:
    queues = {queue for function in read_bundle().functions for queue, _ in function.queues}
    assert queues >= MESSAGES.keys()


def test_a_queue_without_a_figure_has_a_few_messages() -> None:
    function = Function("tutoring.new", 1.0, 0, (("tutoring.new", 1),))
    assert units(bundle_of(function), teachers=100)["SQS, of messages"] == 100 * FEW * 3


def test_the_page_is_what_the_templates_say_today() -> None:
    assert PAGE.read_text() == page(lines_of(read_bundle())), "make cost"


def test_a_clock_is_paid_by_its_rings_and_a_queue_by_its_pollers() -> None:
    by_the_clock = Function("platform.one", gigabytes=1.0, runs=1_000, queues=())
    idle = Function("tutoring.two", gigabytes=0.5, runs=0, queues=(("tutoring.drive-copy", 1),))
    taken = units(bundle_of(by_the_clock, idle, watched=3, secrets=2), teachers=0)
    assert taken["Lambda requests"] == 1_000
    assert taken["SQS, of idle pollers"] == 5 * 30 * 86_400 / 20
    assert taken["SQS, of messages"] == 0
    assert taken["Metrics watched by alarms"] == 3
    assert taken["Secrets"] == 3


def test_large_batches_save_invocations() -> None:
    def invocations(batch: int) -> float:
        function = Function("tutoring.auto-complete", 1.0, 0, (("tutoring.auto-complete", batch),))
        return units(bundle_of(function), teachers=10_000)["Lambda requests"]

    assert invocations(1) == 600_000
    assert invocations(10_000) == 1_800  # a poller's share of each full hour


def test_all_that_is_used_has_a_price() -> None:
    assert units(read_bundle(), 100).keys() == PRICES.keys()


def test_only_what_an_alarm_reads_is_a_metric_and_only_in_hours_with_values() -> None:
    hourly = Function("platform.hourly", gigabytes=1.0, runs=720, queues=())
    monthly = Function("platform.monthly", gigabytes=1.0, runs=1, queues=())
    assert units(bundle_of(hourly, monthly), teachers=0)["Metrics"] == 0
    counted = bundle_of(hourly, monthly, critical=("platform.hourly", "platform.monthly"))
    assert units(counted, teachers=0)["Metrics"] == 1 + 1 / 720


def test_it_costs_what_it_may() -> None:
    """US dollars a month without e-mails, by teachers: the aims, beside 14.4 and 26.1 for two workers with a queue."""
    bundle = read_bundle()
    for teachers, aim in ((100, 15), (1_000, 20), (10_000, 60)):
        taken = units(bundle, teachers)
        assert sum(taken[what] * price for what, price in PRICES.items() if what != SES) < aim
