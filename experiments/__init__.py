"""The papers as scripts, and the training of the shipped demo models."""

from mmlens._torchvision import declare_missing_operators

# Beside a CPU torch, a torchvision wheel that was built for CUDA would keep transformers itself from
# importing; whoever runs a script should not have to know.
declare_missing_operators()
