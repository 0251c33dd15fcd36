"""The logit lens: what a layer would say, over positions, layers and media."""
