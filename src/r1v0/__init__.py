"""r1v0: DeepSeek R1-Zero's curves of test-time scaling, redrawn on small models."""

__version__ = "0.1.0"
