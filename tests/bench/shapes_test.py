import unittest

from measure.bench import Sizes, pages_start
from measure.guest import RamShape
from measure.sizes import GIB, MIB, format_size, parse_size


class SizesTest(unittest.TestCase):
    def test_parses_units_of_1024(self):
        self.assertEqual([parse_size(text) for text in ("4096", "1.5G", "64m")], [4096, 3 * GIB // 2, 64 * MIB])

    def test_refuses_what_is_no_size(self):
        for text in ("", "G", "-1", "1 X", "1e9"):
            with self.assertRaises(ValueError, msg=text):
                parse_size(text)

    def test_formats_in_the_largest_unit_that_fits(self):
        self.assertEqual([format_size(size) for size in (12, 2048, 3 * GIB)], ["12 bytes", "2.0 KiB", "3.0 GiB"])


class RamShapeTest(unittest.TestCase):
    def test_dense_memory_is_one_piece(self):
        pieces = list(RamShape(8 * MIB, 3 * MIB, dense=True).pieces())
        self.assertEqual(pieces, [(0, MIB), (MIB, MIB), (2 * MIB, MIB)])

    def test_sparse_memory_is_spread_over_the_guest(self):
        pieces = list(RamShape(64 * MIB, 4 * MIB, dense=False).pieces())
        self.assertEqual(pieces, [(0, MIB), (16 * MIB, MIB), (32 * MIB, MIB), (48 * MIB, MIB)])

    def test_the_last_piece_may_be_shorter(self):
        pieces = list(RamShape(8 * MIB, MIB + 4096, dense=False).pieces())
        self.assertEqual(pieces, [(0, MIB), (4 * MIB, 4096)])

    def test_scaled_sizes_keep_their_shapes(self):
        sizes = Sizes.of(4 * GIB, 8 * GIB, scale=16)
        self.assertEqual(sizes.dense, RamShape(256 * MIB, 192 * MIB, True))
        self.assertEqual(sizes.sparse, RamShape(512 * MIB, 26 * MIB, False))
        self.assertEqual([shape.size for shape in sizes.growing], [64 * MIB, 128 * MIB, 256 * MIB, 512 * MIB])
        self.assertEqual({shape.used for shape in sizes.growing}, {32 * MIB})


class PagesStartTest(unittest.TestCase):
    def test_is_the_first_mebibyte_behind_the_bitmap(self):
        self.assertEqual(pages_start(65796, 4 * GIB), MIB)
        self.assertEqual(pages_start(65796, 32 * GIB), 2 * MIB)


if __name__ == "__main__":
    unittest.main()
