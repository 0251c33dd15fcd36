"""Token states and what the last token takes from each group (MINER's analyses)."""
