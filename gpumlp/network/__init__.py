"""The multi-layer perceptron: what it is made of, and the way through it forward and back."""
