import csv
import tempfile
import unittest
from contextlib import nullcontext
from pathlib import Path

from measure import report
from measure.bench import Sizes
from measure.charts import Bar, bars_script
from measure.failure import Failure
from measure.sizes import GIB
from measure.statistics import Spread, Verdict
from measure.usage import Usage
from measure.work import Measured, Sample, Target, Work, orders, require_moved

_TARGETS = [Target("wall", "ours", "theirs", 0.5), Target("peak", "ours", None, 1 << 20)]
_WORK = Work("x", "a work", lambda bench: nullcontext({}), lambda s: _TARGETS, lambda s: GIB, lambda s: GIB)


def _measured() -> Measured:
    measured = Measured(_WORK, Sizes.of(GIB, GIB, 1), ["ours", "theirs"])
    for number, (ours, theirs) in enumerate([(1.0, 2.0), (3.0, 4.0), (1.0, 4.0)], 1):
        measured.samples.append(Sample("ours", number, 1, Usage(wall=ours, cpu=0.1, peak=1 << 19)))
        measured.samples.append(Sample("theirs", number, 2, Usage(wall=theirs, cpu=0.2)))
    return measured


class OrdersTest(unittest.TestCase):
    def test_everybody_is_first_in_turn(self):
        self.assertEqual(orders(["a", "b"], 3), [["a", "b"], ["b", "a"], ["a", "b"]])
        self.assertEqual([order[0] for order in orders(["a", "b", "c"], 4)], ["a", "b", "c", "a"])
        self.assertEqual({"".join(sorted(order)) for order in orders(["a", "b", "c"], 4)}, {"abc"})

    def test_everybody_follows_each_of_the_others(self):
        pairs = [pair for order in orders("abcd", 4) for pair in zip(order, order[1:])]
        self.assertEqual(len(set(pairs)), 12)


class RequireMovedTest(unittest.TestCase):
    def test_refuses_a_run_that_did_less_than_it_claims(self):
        require_moved(Usage(wall=1, cpu=1, on_disk=1000), 1000, "ours")
        require_moved(Usage(wall=1, cpu=1, read=1000), 1000, "ours")
        with self.assertRaises(Failure):
            require_moved(Usage(wall=1, cpu=1, written=1000, read=800), 1000, "ours")


class TableTest(unittest.TestCase):
    def test_columns_are_aligned(self):
        self.assertEqual(report.table(["a", "bb"], [["long", "x"]]), "| a    | bb |\n|------|----|\n| long | x  |")


class TargetsTableTest(unittest.TestCase):
    def test_ratios_are_those_of_pairs(self):
        line = report.targets_table(_measured()).split("\n")[2]
        self.assertIn("0.50 (0.25..0.75)", line)
        self.assertIn("<= 0.50", line)
        self.assertIn("reached, 0% to spare", line)

    def test_a_target_without_a_peer_is_a_size(self):
        self.assertIn("512.0 KiB", report.targets_table(_measured()).split("\n")[3])

    def test_what_is_missed_says_by_how_much(self):
        self.assertEqual(report.outcome(Verdict(Spread(0.6, 0.6, 0.6), 0.5)), "missed by 20%")


class CsvTest(unittest.TestCase):
    def test_has_every_run_behind_the_facts(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "runs.csv"
            report.write_csv(path, {"cpu": "one", "kernel": "another"}, [_measured()])
            lines = path.read_text().splitlines()
        self.assertEqual(lines[:2], ["# cpu:    one", "# kernel: another"])
        rows = list(csv.DictReader(lines[2:]))
        self.assertEqual(len(rows), 6)
        self.assertEqual((rows[2]["contender"], rows[2]["round"], rows[2]["wall"]), ("ours", "2", "3.0"))


class BarsTest(unittest.TestCase):
    def test_each_bar_has_its_own_target(self):
        bars = [Bar('first "best"', Spread(1, 1, 2), 0.5), Bar("second", Spread(3, 3, 3))]
        script = bars_script(Path("x.svg"), "title", "s", bars)
        self.assertIn("$limits << EOD\n2 0.5\nEOD", script)
        self.assertIn(r'"first \"best\"" 2, "second" 1', script)


if __name__ == "__main__":
    unittest.main()
