"""What bench/compare, bench/lazy and bench/nvme measure with: guests, peers, their costs, and how they are reported."""
