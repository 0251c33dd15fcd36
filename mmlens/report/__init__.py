"""Pages of parts: sections, prompts, pictures and verdicts, from tables alone."""
