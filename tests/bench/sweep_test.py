import unittest

from measure.sizes import GIB, MIB
from measure.sweep import ENGINE, FIO, Setting, Swept, channel_depth, ways_and_channels
from measure.usage import Usage


class SettingsTest(unittest.TestCase):
    def test_depths_are_those_of_the_writers(self):
        self.assertEqual([channel_depth(count) for count in (1, 2, 8, 16, 256)], [16, 16, 4, 2, 2])

    def test_only_io_uring_has_a_depth(self):
        for setting in ways_and_channels([1, 8]):
            self.assertEqual(setting.depth > 1, setting.engine == "uring", setting)


class SweptTest(unittest.TestCase):
    def setUp(self):
        self.small, self.large = Setting(block=MIB), Setting(block=4 * MIB)
        self.swept = Swept(GIB, (FIO, ENGINE), [self.small, self.large])
        walls = {(FIO, self.small): [1.0, 2.0], (ENGINE, self.small): [2.0, 4.0],
                 (FIO, self.large): [0.5, 0.5], (ENGINE, self.large): [0.5, 1.0]}
        for key, seconds in walls.items():
            self.swept.runs[key] = [Usage(wall=wall, cpu=0) for wall in seconds]

    def test_share_is_of_fios_rate_in_the_same_round(self):
        share = self.swept.share(ENGINE, self.small)
        self.assertEqual((share.low, share.high), (0.5, 0.5))

    def test_limit_is_the_best_of_fio(self):
        setting, rate = self.swept.limit()
        self.assertEqual((setting, rate.median), (self.large, 2.0))


if __name__ == "__main__":
    unittest.main()
