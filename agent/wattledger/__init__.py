"""wattledger: energy, carbon and water books for GPU nodes."""

__version__ = "0.1.0"
