"""HookedMLLM: a Hugging Face model whose decoder runs on a hooked backbone."""
