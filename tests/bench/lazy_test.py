import socket
import tempfile
import threading
import unittest
from contextlib import nullcontext
from pathlib import Path

from measure import lazy_report
from measure.bench import Sizes, completed
from measure.console import Console, Tick, parse_tick
from measure.failure import Failure
from measure.guest import RamShape, write_ram
from measure.restores import LAZY, QEMUS, RESTORES, STREAM, Restored, on, restored
from measure.sizes import GIB, MIB
from measure.ticking_guest import TickingShape
from measure.usage import Usage
from measure.work import Measured, Sample, Target, Work

_LAZY = {
    "via": "lazy", "seconds_to_start": 0.03, "seconds": 0.5, "demands": 40,
    "demand_p50_seconds": 0.001, "demand_p99_seconds": 0.004, "demand_most_seconds": 0.006,
}
_SAID = """{"progress":{"phase":"pages","done":1,"total":2}}
vmrestore: this kernel has no io_uring: preadv instead
{"started":{"running":true,"seconds":0.03}}
{"completed":{"via":"lazy","demands":40}}
"""


class CompletedTest(unittest.TestCase):
    def test_is_found_among_other_lines(self):
        self.assertEqual(completed(_SAID), {"via": "lazy", "demands": 40})

    def test_refuses_output_that_does_not_tell(self):
        with self.assertRaisesRegex(Failure, "vmrestore: nothing"):
            completed('{"started":{}}\nvmrestore: nothing\n')


class RestoredTest(unittest.TestCase):
    def test_has_the_cpu_of_both_processes_and_its_parts(self):
        result = restored(Usage(wall=1.0, cpu=0.2, read=5), Usage(wall=1.1, cpu=0.3, read=7), _LAZY)
        self.assertAlmostEqual(result.cpu, 0.5)
        self.assertAlmostEqual(result.own_cpu, 0.2)
        self.assertEqual((result.wall, result.qemu_cpu, result.read), (1.0, 0.3, 12))

    def test_lazy_tells_when_the_guest_started_and_how_it_waited(self):
        result = restored(Usage(1, 0), Usage(1, 0), _LAZY)
        self.assertEqual((result.said, result.demands), (0.03, 40))
        self.assertEqual((result.demand_p50, result.demand_p99, result.demand_most), (0.001, 0.004, 0.006))

    def test_eager_runs_when_it_is_done_and_nobody_waited(self):
        result = restored(Usage(1, 0), Usage(1, 0), {"via": "stream", "seconds": 0.5})
        self.assertEqual(result.said, 0.5)
        self.assertNotEqual(result.demand_p99, result.demand_p99)  # not a number


class TickTest(unittest.TestCase):
    def test_only_whole_lines_of_ticks_count(self):
        self.assertEqual(parse_tick("tick 12 ok\r", 1.5), Tick(12, "ok", 1.5))
        self.assertEqual(parse_tick("tick 3 corrupt 0x004a6ffc", 1.5).finding, "corrupt 0x004a6ffc")
        for line in ("ck 12 ok", "pass 1 ok", "ready", "tick"):
            self.assertIsNone(parse_tick(line, 1.5), line)


class ConsoleTest(unittest.TestCase):
    """The guest's side is a socket of ours."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = Path(directory.name) / "console"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            self.console = Console(path)
            self.guest = listener.accept()[0]
        self.addCleanup(self.console.close)
        self.addCleanup(self.guest.close)

    def test_counts_from_the_first_whole_tick(self):
        for said in (b"k 6 ok\ntic", b"k 7 ok\ntick 8 ok\npass 1 ok\n", b"tick 9 ok\n"):
            self.guest.sendall(said)
        first = self.console.first()
        self.assertEqual((first.number, self.console.behind(first, 2).number), (7, 9))
        self.assertLessEqual(first.at, self.console.behind(first, 2).at)
        self.assertEqual(self.console.last().number, 9)

    def test_waits_for_what_is_not_said_yet(self):
        self.guest.sendall(b"tick 1 ok\n")
        first = self.console.first()
        later = threading.Timer(0.01, lambda: self.guest.sendall(b"tick 2 ok\n"))
        later.start()
        self.assertEqual(self.console.behind(first, 1).number, 2)
        later.join()

    def test_memory_that_is_wrong_ends_the_measurement(self):
        self.guest.sendall(b"tick 1 ok\ntick 2 stale 0x00c83000 generation 1 expected 2\ntick 3 ok\n")
        with self.assertRaisesRegex(Failure, "tick 2 stale 0x00c83000"):
            self.console.behind(Tick(1, "ok", 0), 5)

    def test_guest_that_ends_is_told(self):
        self.guest.sendall(b"tick 1 ok\n")
        self.guest.shutdown(socket.SHUT_RDWR)
        with self.assertRaisesRegex(Failure, "ended"):
            self.console.behind(self.console.first(), 1)


class TickingShapeTest(unittest.TestCase):
    def test_guest_looks_at_all_of_a_small_one(self):
        shape = TickingShape(GIB, 0.75)
        self.assertEqual(shape.kernel_options(), "check=filled fill=75 passes=384 tick=1 seed=7")
        self.assertEqual(shape.written_ahead(), (GIB, RamShape(0, 0, True)))

    def test_what_lies_beyond_4_gib_is_written_ahead(self):
        start, random = TickingShape(16 * GIB, 0.75).written_ahead()
        self.assertEqual((start, random), (3 * GIB, RamShape(13 * GIB, 13 * GIB * 3 // 4, True)))
        self.assertFalse(TickingShape(16 * GIB, 0.1).written_ahead()[1].dense)

    def test_window_lies_among_all_that_is_in_use(self):
        shape = TickingShape(4 * GIB, 0.75, 200 * MIB)
        self.assertEqual(shape.percent, 7)
        self.assertEqual(shape.written_ahead(), (0, RamShape(4 * GIB, 3 * GIB, True)))

    def test_pass_has_some_ticks_and_not_too_many(self):
        self.assertEqual(TickingShape(MIB, 0.75).ticks_of_pass, 4)
        self.assertEqual(TickingShape(16 * GIB, 0.75).ticks_of_pass, 1000)

    def test_scaled_sizes_keep_their_shares(self):
        window = Sizes.of(4 * GIB, 8 * GIB, scale=64).ticking["4 window"]
        self.assertEqual((window.size, window.payload, window.window), (64 * MIB, 48 * MIB, 200 * MIB // 64))


class WriteRamTest(unittest.TestCase):
    def test_writes_behind_a_hole(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "ram"
            write_ram(path, RamShape(2 * MIB, MIB, True), start=3 * MIB)
            memory = path.read_bytes()
        self.assertEqual(len(memory), 5 * MIB)
        self.assertFalse(any(memory[:3 * MIB]))
        self.assertTrue(any(memory[3 * MIB:4 * MIB]))
        self.assertFalse(any(memory[4 * MIB:]))


def _measured(again: float = float("nan")) -> Measured:
    targets = [Target("running", "lazy", None, 0.15), Target("demand_p99", "lazy", None, 0.005),
               Target("wall", "lazy", "stream", 1.3)]
    work = Work("a", "a guest", lambda bench: nullcontext({}), lambda s: targets, lambda s: GIB, lambda s: 4 * GIB)
    measured = Measured(work, Sizes.of(GIB, GIB, 1), ["lazy", "stream"])
    for number, (full, running) in enumerate([(2.6, 0.1), (2.8, 0.12), (3.0, 0.18)], 1):
        lazy = Restored(full, 0.5, running=running, said=0.03, first_tick=0.2, looked=2.0, looked_again=again,
                        qemu_cpu=0.3, demands=40, demand_p50=0.001, demand_p99=0.004, demand_most=0.006)
        eager = Restored(2.0, 0.5, running=2.0, said=1.9, first_tick=2.1, looked=3.0, looked_again=again, qemu_cpu=0.4)
        measured.samples += [Sample("lazy", number, 1, lazy), Sample("stream", number, 2, eager)]
    return measured


class TimesTableTest(unittest.TestCase):
    def test_has_milliseconds_and_seconds(self):
        lazy = lazy_report.times_table(_measured()).split("\n")[2]
        for figure in ("120.0 (100.0..180.0)", "30.0", "2.80 (2.60..3.00)", "1.00 / 4.00 / 6.00", " 40 ", " 0.20 "):
            self.assertIn(figure, lazy)

    def test_what_there_is_not_is_a_dash(self):
        self.assertIn("| - / - / -", lazy_report.times_table(_measured()).split("\n")[3])

    def test_verified_again_is_a_column_where_it_was_measured(self):
        self.assertNotIn("verified again", lazy_report.times_table(_measured()))
        self.assertIn("verified again", lazy_report.times_table(_measured(again=0.5)))


class GoalsTest(unittest.TestCase):
    def test_bounds_hold_in_every_round_and_ratios_in_the_median(self):
        rows = lazy_report.describe(_measured(), 3).rstrip().split("\n")[-3:]
        self.assertIn("180.0 ms", rows[0])
        self.assertIn("missed by 20%", rows[0])
        self.assertIn("4.00 ms", rows[1])
        self.assertIn("reached", rows[1])
        self.assertIn("1.40 (1.30..1.50)", rows[2])
        self.assertIn("missed by 8%", rows[2])

    def test_every_row_has_those_of_each_qemu(self):
        sizes = Sizes.of(4 * GIB, 8 * GIB, 1)
        for work in RESTORES[:-1]:
            self.assertEqual(len(work.targets(sizes)), 4 * len(QEMUS))
        self.assertIn(Target("wall", on(LAZY, "7.2"), on(STREAM, "7.2"), 1.3), RESTORES[0].targets(sizes))


if __name__ == "__main__":
    unittest.main()
