"""The mathematics, written once: activations, costs and update rules, and the means to record and print them."""
