"""Numbers behind the figures: first as tidy frames, which sentences share, then as text for the page."""
