"""The suite on the embedded server and, if installed, the real one: no differences except the listed deviations."""

import concurrent.futures

import pytest

from tests.conformance import outcomes, servers, suite

PROGRAMS = {program.name: program for program in (servers.embedded(), servers.real()) if program}


@pytest.fixture(scope="session")
def running(request, shared_folder, tmp_path_factory):
    """The selected parts, some of them concurrently in threads, because they mostly wait."""
    folder = tmp_path_factory.mktemp("parts")
    wanted = [item.callspec.params for item in request.session.items if item.function is test_recorded_behaviour]
    with concurrent.futures.ThreadPoolExecutor(suite.AT_ONCE) as pool:
        yield {
            (each["part"], each["server"]): pool.submit(
                suite.run_part,
                each["part"],
                PROGRAMS[each["server"]],
                shared_folder,
                folder / each["server"] / each["part"],
            )
            for each in wanted
        }


@pytest.mark.parametrize("server", PROGRAMS)
@pytest.mark.parametrize("part", suite.PARTS)
def test_recorded_behaviour(part, server, running):
    results = running[part, server].result()
    assert results, f"{part} has no outcomes"
    different = [
        f"{outcome.section} {outcome.id}: {outcome.why}" for outcome in results if outcome.verdict == outcomes.DIFFERENT
    ]
    assert not different, "\n" + "\n".join(different)
