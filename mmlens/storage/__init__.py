"""Files: written whole or not at all, fingerprinted, and the assets that lie beside modules."""
