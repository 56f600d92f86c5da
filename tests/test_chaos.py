"""The killer of tests/chaos: its plan and its table. A short part is played in test_faults.py."""

from chaos.jobs import differences, make_jobs
from chaos.plan import plan, shares
from chaos.table import summarise

KILLS = 200


def faults_of(episodes):
    return [fault for episode in episodes for fault in episode.faults]


def test_plan_is_the_same_when_the_seed_is():
    counts = shares(KILLS)
    assert plan(counts, 1) == plan(counts, 1)
    assert plan(counts, 1) != plan(counts, 2)


def test_plan_holds_as_many_faults_of_each_scenario_as_asked_for():
    counts = shares(KILLS)
    assert sum(counts.values()) == KILLS
    names = [fault.scenario for fault in faults_of(plan(counts, 0))]
    assert {name: names.count(name) for name in counts} == counts


def test_plan_strikes_every_job_in_phases_that_it_has_in_order(tmp_path):
    jobs = make_jobs(tmp_path)
    episodes = plan(shares(KILLS), 0)
    assert {episode.job for episode in episodes} == {*jobs}
    for episode in episodes:
        order = [phase.name for phase in jobs[episode.job].phases]
        places = [(order.index(fault.phase), fault.moment) for fault in episode.faults]
        assert places == sorted(places)
        assert all(fault.after(10) < 10 for fault in episode.faults)


def test_table_counts_no_miss_as_survived():
    outcome = {"scenario": "task", "missed": False, "survived": True, "recovery_s": 2.0,
               "extra_s": 1.0}  # fmt: skip
    lost = {**outcome, "survived": False, "recovery_s": None}
    missed = {**outcome, "missed": True, "survived": True, "recovery_s": 99.0}
    row, everything = summarise([outcome, {**outcome, "recovery_s": 4.0}, lost, missed])
    assert (row["struck"], row["equal"], row["missed"]) == (3, 2, 1)
    assert (row["recovery_median_s"], row["recovery_worst_s"]) == (3.0, 4.0)
    assert everything == {**row, "scenario": "all"}


def test_outputs_that_are_missing_or_too_many_are_differences():
    assert differences({"a": "1", "b": "2"}, {"a": "1", "b": "3"}) == ["b"]
    assert differences({"a": "1"}, {"a": "1", "b": "3"}) == ["b"]
    assert differences({"a": "1", "c": "1"}, {"a": "1"}) == ["c"]
