"""What the experiments share, in the order in which an experiment uses it.

- ``config``: the settings that all have, by topic; ``--quick``; what the manifest keeps of them.
- ``data``: samples of a folder, a demo or benchmarks, and how their answers are scored.
- ``start``: the command line, the run folder (under a launcher the first process's alone), the
  model, and what the run will take.
- ``collecting``: activation statistics, counted by all processes.
- ``study``, ``sections``: what every analysis works on, and analyses of any neuron sets.
- ``output``: neuron sets, figures, and the closing sentences on the terminal.
"""

from experiments.shared.collecting import STATISTICS, collect_statistics, help_with_statistics
from experiments.shared.config import (
    AnswerSettings,
    BatchSettings,
    CommonConfig,
    LoadSettings,
    SampleSettings,
    batching,
    changed,
    generation,
    settings,
    settled,
)
from experiments.shared.data import (
    benchmarks,
    chosen_values,
    data_folder,
    data_hashes,
    metrics,
    named_folders,
    read_split,
)
from experiments.shared.output import (
    about_run,
    samples_used,
    save_selections,
    save_sets,
    summarise,
    write_figures,
)
from experiments.shared.sections import (
    CARD_SAMPLES,
    cards_section,
    lens_section,
    overlap_section,
    stability_section,
)
from experiments.shared.start import announce, command_line, load, open_run
from experiments.shared.study import Study

__all__ = [
    "CARD_SAMPLES",
    "STATISTICS",
    "AnswerSettings",
    "BatchSettings",
    "CommonConfig",
    "LoadSettings",
    "SampleSettings",
    "Study",
    "about_run",
    "announce",
    "batching",
    "changed",
    "benchmarks",
    "cards_section",
    "chosen_values",
    "collect_statistics",
    "command_line",
    "data_folder",
    "data_hashes",
    "generation",
    "help_with_statistics",
    "lens_section",
    "load",
    "metrics",
    "named_folders",
    "open_run",
    "overlap_section",
    "read_split",
    "samples_used",
    "save_selections",
    "save_sets",
    "settings",
    "settled",
    "stability_section",
    "summarise",
    "write_figures",
]
