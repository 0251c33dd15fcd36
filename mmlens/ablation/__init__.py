"""Masks beside their controls: asked, scored, compared."""
