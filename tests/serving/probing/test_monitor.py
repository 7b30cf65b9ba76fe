"""serving.probing.monitor, metrics and latencies, over an in-memory channel."""

import itertools
import threading
import types

import grpc
import pytest
from prometheus_client import parser

from components.task.transducer import ADDITION
from serving import tensors
from serving.probing import metrics as probe_metrics
from serving.probing import prober
from serving.probing.generated import fresh
from serving.probing.latencies import BOUNDS, Latencies
from serving.probing.monitor import MAX_LISTED_WRONG, Plan, Watch
from serving.probing.prober import TimedClient
from serving.probing.questions import Question
from tests.support.in_memory import Channel, Failure

pytestmark = pytest.mark.fast

ASKED = Question(13, 29, 5)


class Stop(threading.Event):
    """Stops after so many pauses; records their seconds without sleeping."""

    def __init__(self, pauses, between=lambda pause: None):
        super().__init__()
        self._left, self._between = pauses, between
        self.pauses = []

    def wait(self, timeout=None):
        self.pauses.append(timeout)
        self._between(len(self.pauses))
        if len(self.pauses) == self._left:
            self.set()
        return self.is_set()


@pytest.fixture
def stopped_clock(monkeypatch):
    """Calls take zero seconds."""
    monkeypatch.setattr(prober, "time", types.SimpleNamespace(perf_counter=lambda: 0.0))


def watch(channel, questions, stop=None, label="", **plan):
    """A finished watch and its log lines."""
    lines = []
    client = TimedClient("memory", "bitsum", channel=channel, label=label)
    watched = Watch(client, Plan(ADDITION, **{"wanted": ("add_bits",), **plan}), iter(questions), lines.append)
    watched.run(stop or threading.Event())
    return watched, lines


def metrics(*watches):
    """{(name, labels without the target): value} of the page."""
    families = parser.text_string_to_metric_families(probe_metrics.page(watches).decode())
    return {
        (sample.name, *(value for name, value in sample.labels.items() if name != "target")): sample.value
        for family in families
        for sample in family.samples
    }


def unavailable(signature, outputs):
    raise Failure(grpc.StatusCode.UNAVAILABLE, "failed to connect: Connection refused")


def wrong(signature, outputs):
    outputs["sum"] = tensors.bits_tensor([43] * outputs["sum"].tensor_shape.dim[0].size, 6)


def test_an_outage_is_bridged_with_growing_pauses_and_logged(stopped_clock):
    channel = Channel(unavailable)

    def back(pause):
        if pause == 8:
            channel.spoil = lambda signature, outputs: None

    stop = Stop(10, back)
    watched, lines = watch(channel, itertools.repeat(ASKED), stop, lasting=True, rate=10.0)
    report = watched.total()
    assert (report.asked, report.right, dict(report.errors), report.gave_up) == (100, 20, {"UNAVAILABLE": 80}, False)
    # One second per ten questions, unless the pause after a failure is longer.
    assert stop.pauses == [1.0, 1.0, 1.0, 1.6, 3.2, 5.0, 5.0, 5.0, 1.0, 1.0]
    assert [line.partition(":")[2][:26] for line in lines] == [
        " no model server answers a",
        " answers again after 8 fai",
    ]


def test_a_bounded_probe_gives_up_on_a_dead_server():
    watched, _ = watch(Channel(unavailable), [Question(13, 29, 5 * 4**n) for n in range(7)])
    assert watched.total().gave_up and watched.total().errors == {"UNAVAILABLE": 5} and not watched.total().all_right


def test_the_rate_is_kept(stopped_clock):
    stop = Stop(20)
    watched, _ = watch(Channel(), itertools.repeat(ASKED), stop, lasting=True, rate=8.0)
    assert watched.total().asked == 160 and stop.pauses == [1.0] * 20
    stop = Stop(3)
    watched, _ = watch(Channel(), itertools.repeat(ASKED), stop, lasting=True, rate=0.25)
    assert watched.total().asked == 3 and stop.pauses == [4.0] * 3


def test_wrong_answers_are_logged_up_to_a_limit_and_counted():
    watched, lines = watch(Channel(wrong), itertools.repeat(ASKED), Stop(2), lasting=True, rate=70.0)
    assert (watched.total().wrong_count, len(watched.total().wrong), len(lines)) == (140, 10, MAX_LISTED_WRONG)
    assert lines[0] == "memory: wrong: 13 + 29 = 43 by add_bits, not 42 (output 0 is wrong); version 1 answered"


def test_a_version_change_is_logged_and_not_an_error():
    channel = Channel()

    def change(pause):
        channel.version = 2 if pause == 2 else channel.version

    watched, lines = watch(channel, itertools.repeat(ASKED), Stop(4, change), rate=1.0)
    report = watched.total()
    assert report.all_right and report.version_changes == 1 and report.versions == {"1": 2, "2": 2}
    assert lines == ["memory: version 2 answers, previously version 1"]
    watched, lines = watch(channel, [ASKED], expected=1)
    assert watched.total().unexpected_version == watched.total().right == 1 and not watched.total().all_right
    assert lines == ["memory: version 2 answers, version 1 is expected"]


def test_a_version_change_during_a_stream_is_not_an_error():
    channel = Channel()

    def change(signature, outputs):
        if len(channel.predictions) == 2:
            channel.version = 2
            raise Failure(grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(bitsum, 1)")

    channel.spoil = change
    watched, _ = watch(channel, [Question(2**19_999, 2**19_999, 20_000, streamed=True)], wanted=("step",))
    assert watched.total().all_right and watched.total().version == 2


def test_a_version_with_another_state_or_without_packed_bits_is_not_an_error():
    for change in ({"packed": False}, {"units": 7}):
        channel = Channel()

        def swap(signature, outputs, channel=channel, change=change):
            if signature == "step":
                vars(channel).update(change, version=2)

        channel.spoil = swap
        watched, _ = watch(channel, [ASKED] * 3, wanted=None)
        assert watched.total().all_right and watched.total().by_signature["add_packed"] == (
            0 if "packed" in change else 3
        )


def test_the_default_label_is_stable():
    channel = Channel()
    assert watch(channel, [ASKED], label=None)[0].total().all_right
    assert {request.model_spec.version_label for request in channel.predictions} == {"stable"}


def test_an_exception_of_the_prober_is_raised():
    def broken():
        yield ASKED
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        watch(Channel(), broken())


def test_the_metrics_page():
    channel = Channel(lambda signature, outputs: wrong(signature, outputs) if signature == "add_bits" else None)
    watched, _ = watch(channel, [ASKED] * 3, wanted=("step", "add_bits"))
    page = metrics(watched)
    assert page["probe_success",] == 0 and page["probe_duration_seconds",] > 0 and page["bitsum_probe_version",] == 1
    assert page["bitsum_probe_questions_total", "step"] == page["bitsum_probe_questions_total", "add_bits"] == 3
    assert (
        page["bitsum_probe_answers_total", "step", "1", "right"]
        == page["bitsum_probe_answers_total", "add_bits", "1", "wrong"]
        == 3
    )
    assert page["bitsum_probe_last_wrong_timestamp_seconds",] == pytest.approx(watched.total().last_wrong, abs=0.01)
    # The two chunks of a stream.
    assert (
        page["bitsum_probe_call_seconds_count", "step"] == 2 == page["bitsum_probe_call_seconds_bucket", "step", "+Inf"]
    )
    assert (
        watch(Channel(), [ASKED])[0].last().all_right and metrics(watch(Channel(), [ASKED])[0])["probe_success",] == 1
    )
    down = metrics(watch(Channel(unavailable), [ASKED])[0])
    assert down["probe_success",] == 0 and down["bitsum_probe_errors_total", "UNAVAILABLE"] == 1
    assert down["bitsum_probe_last_wrong_timestamp_seconds",] == 0 and ("bitsum_probe_version",) not in down


def test_the_number_of_counted_versions_is_bounded():
    channel = Channel()

    def count(pause):
        channel.version += 1

    report = watch(channel, itertools.repeat(ASKED), Stop(300, count), rate=1.0, lasting=True)[0].total()
    assert len(report.versions) == 101 and report.versions["(other)"] == 200 and report.version_changes == 299


def test_long_numbers_use_only_signatures_with_a_state():
    channel = Channel()
    watched, _ = watch(channel, fresh(ADDITION, 0, 4), wanted=None)
    assert watched.total().all_right
    assert watched.total().by_signature == {"serving_default": 3, "add_bits": 3, "step": 4, "add_packed": 4}


def test_missing_metadata_are_an_error_and_probing_continues():
    class Silent(Channel):
        def _metadata(self, request):
            raise Failure(grpc.StatusCode.INTERNAL, "no metadata")

    watched, _ = watch(Silent(), [ASKED], wanted=None)
    report = watched.total()
    # step also needs the metadata.
    assert report.errors == {"INTERNAL": 2} and report.right == 2 and report.asked == 4 and not report.all_right


def test_quantiles_are_within_5_percent_and_merge():
    one, other = Latencies(), Latencies()
    for number in range(1, 1001):
        (one if number % 2 else other).add(number / 1000)
    one.merge(other)
    assert len(one) == 1000
    for share in (0.5, 0.9, 0.99):
        assert share <= one.quantile(share) < 1.05 * share
    assert one.quantile(1.0) == 1.0 and Latencies().quantile(0.5) is None
    beyond = Latencies()
    beyond.add(500.0)
    assert beyond.quantile(0.5) == 500.0


def test_the_histogram_has_a_bound_at_each_doubling():
    latencies = Latencies()
    for seconds in (0.00005, 0.0001, 0.00011, 0.0002, 0.0003, 1000.0):
        latencies.add(seconds)
    histogram = latencies.histogram()
    assert histogram.bounds == BOUNDS and BOUNDS[:3] == (0.0001, 0.0002, 0.0004) and len(BOUNDS) == 21
    assert histogram.counts == [2, 2, 1, *[0] * 18, 1] and histogram.total == pytest.approx(1000.00076)
