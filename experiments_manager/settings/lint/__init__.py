"""Finding mistakes in the source of settings and model files, each finder by itself; nothing is executed."""
