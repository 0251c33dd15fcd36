"""Files: written whole, read back, fingerprinted.

- ``atomic``: files written whole or not at all
- ``tensorfile``: tensors with a JSON header, in one file
- ``fingerprint``: short hashes of weights, files and settings
- ``assets``: style sheets and captions that lie beside modules
"""
