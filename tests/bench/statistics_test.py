import unittest

from measure.statistics import Spread, Verdict, pairwise_ratios, spread


class SpreadTest(unittest.TestCase):
    def test_of_an_even_number_the_median_lies_between_the_middle_two(self):
        self.assertEqual(spread([4.0, 1.0, 2.0, 8.0]), Spread(3.0, 1.0, 8.0))

    def test_one_outlier_does_not_move_the_median(self):
        self.assertEqual(spread([1.0, 1.0, 50.0]), Spread(1.0, 1.0, 50.0))


class PairwiseRatiosTest(unittest.TestCase):
    def test_divides_round_by_round(self):
        # Both are slow in the second round: the medians' ratio would tell 3, no pair does.
        self.assertEqual(pairwise_ratios([1.0, 9.0, 1.0], [2.0, 18.0, 2.0]), [0.5, 0.5, 0.5])

    def test_leaves_out_rounds_with_nothing_to_divide_by(self):
        self.assertEqual(pairwise_ratios([1.0, 3.0], [0.0, 2.0]), [1.5])

    def test_refuses_rounds_without_a_partner(self):
        with self.assertRaises(ValueError):
            pairwise_ratios([1.0, 2.0], [1.0])


class VerdictTest(unittest.TestCase):
    def test_the_limit_itself_is_reached(self):
        self.assertTrue(Verdict(Spread(0.7, 0.6, 0.9), 0.7).reached)

    def test_the_median_decides(self):
        self.assertFalse(Verdict(Spread(0.8, 0.1, 0.9), 0.7).reached)

    def test_excess_is_a_share_of_the_limit(self):
        self.assertAlmostEqual(Verdict(Spread(1.2, 1.0, 1.5), 1.0).excess, 0.2)


if __name__ == "__main__":
    unittest.main()
