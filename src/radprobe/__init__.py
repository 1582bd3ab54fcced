"""radprobe: which vision foundation model for my radiology images, adapted how, and can I trust the number?"""

__version__ = "0.1.0"
