"""Engines that hand runs to worker processes: each an adapter of a page, which neither waits for nor retries a run."""
