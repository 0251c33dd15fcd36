"""Pages of parts: sections, prompts, pictures and verdicts, from tables alone.

``sections`` has the parts that an analysis hands over, ``prompt`` and ``pictures`` make two of them;
``html`` and ``parts`` write them, ``page`` puts sections into one file. ``verdicts`` judges tables,
``verdict_sentences`` says it in words; ``states`` and ``run_sections`` make sections, ``mmneuron`` and
``miner`` the papers' pages.
"""
