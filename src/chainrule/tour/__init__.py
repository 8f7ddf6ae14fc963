"""The tour: two nets trained on real data, and their gradients explained."""
