"""What the experiments share, in the order in which an experiment uses it.

- ``config``: the settings that all have, by topic; ``--quick``; what the manifest keeps of them.
- ``data``: samples of a folder, a demo or benchmarks, and how their answers are scored.
- ``start``: the command line, the run folder (under a launcher the first process's alone), the
  model, and what the run will take.
- ``collecting``: activation statistics, counted by all processes.
- ``study``, ``sections``: what every analysis works on, and analyses of any neuron sets.
- ``output``: neuron sets, figures, and the closing sentences on the terminal.
"""
